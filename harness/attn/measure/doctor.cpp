#include "attn/measure/doctor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

#include "attn/core/text.hpp"
#include "attn/kernels/dense/onednn.hpp"
#include "attn/measure/machine_state.hpp"

namespace attn {

namespace {

using Verdict = Advice::Verdict;

std::optional<std::string> first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line) || trim(line).empty()) return std::nullopt;
  return std::string(trim(line));
}

Advice unreadable(const std::string& topic, const std::string& path, const std::string& why) {
  return {Verdict::unsupported, topic, "unsupported: cannot read " + path, why, ""};
}

// Directories cpu0, cpu1, ...
std::vector<std::string> processors(const std::string& root) {
  std::vector<std::string> list;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(root + "/sys/devices/system/cpu", ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("cpu", 0) == 0 && name.size() > 3 && name.find_first_not_of("0123456789", 3) == std::string::npos)
      list.push_back(entry.path().string());
  }
  std::sort(list.begin(), list.end());
  return list;
}

Advice load(const std::string& root) {
  const std::string topic = "load", why = "other processes take processors, caches and bandwidth from the cell that is timed";
  const MachineState state = read_machine_state(root);
  if (!state.load) return unreadable(topic, "/proc/loadavg", why);
  const std::string found = fmt::format("{:.2f} processes on {} processors in the last minute", *state.load, state.processors);
  if (busy_before(state).empty()) return {Verdict::fine, topic, found, why, ""};
  return {Verdict::improve, topic, found, why, "end them, or wait: `top -o %CPU` names them"};
}

Advice steal(const std::string& root) {
  const std::string topic = "steal time", why = "the hypervisor runs other guests while a cell is timed";
  const MachineState state = read_machine_state(root);
  if (!state.stolen_s || !state.busy_s) return unreadable(topic, "/proc/stat", why);
  const double share = *state.busy_s + *state.stolen_s > 0 ? *state.stolen_s / (*state.busy_s + *state.stolen_s) : 0;
  const std::string found = fmt::format("{:.2f} % of the processor time used since the start", 100 * share);
  constexpr double much = 0.01;
  if (share < much) return {Verdict::fine, topic, found, why, ""};
  return {Verdict::improve, topic, found, why, "take a host, or an instance type, with processors of its own"};
}

Advice memory_pressure(const std::string& root) {
  const std::string topic = "memory pressure", why = "a process that waits for memory is not computing";
  const std::string path = "/proc/pressure/memory";
  const auto line = first_line(root + path);
  const auto at = line ? line->find("avg60=") : std::string::npos;
  const auto share =
      at == std::string::npos ? Result<double>(refuse("")) : parse_number(line->substr(at + 6, line->find(' ', at) - at - 6));
  if (!share) return unreadable(topic, path, why);
  const std::string found = fmt::format("somebody waited for memory {:.2f} % of the last minute", *share);
  if (*share < 0.1) return {Verdict::fine, topic, found, why, ""};
  return {Verdict::improve, topic, found, why, "end what holds the memory, or give a smaller --n"};
}

Advice governor(const std::string& root) {
  const std::string topic = "governor", why = "a clock that rises under load makes short cells look slow and drifts between rounds";
  std::map<std::string, int> count;
  for (const auto& processor : processors(root)) {
    if (const auto name = first_line(processor + "/cpufreq/scaling_governor")) ++count[*name];
  }
  if (count.empty()) return unreadable(topic, "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor (a virtual machine?)", why);
  std::vector<std::string> parts;
  for (const auto& [name, processors_of] : count) parts.push_back(fmt::format("{} on {} processors", name, processors_of));
  if (count.size() == 1 && count.begin()->first == "performance") return {Verdict::fine, topic, join(parts, ", "), why, ""};
  return {Verdict::improve, topic, join(parts, ", "), why, "`cpupower frequency-set -g performance`, as root"};
}

Advice turbo(const std::string& root) {
  const std::string topic = "turbo", why = "a boosted clock depends on temperature and on the neighbours' load";
  const auto pstate = first_line(root + "/sys/devices/system/cpu/intel_pstate/no_turbo");
  const auto boost = first_line(root + "/sys/devices/system/cpu/cpufreq/boost");
  if (!pstate && !boost)
    return unreadable(topic, "/sys/devices/system/cpu/intel_pstate/no_turbo nor .../cpufreq/boost (a virtual machine?)", why);
  if (pstate ? *pstate == "1" : *boost == "0") return {Verdict::fine, topic, "off", why, ""};
  return {Verdict::improve, topic, "on", why,
          pstate ? "`echo 1 > /sys/devices/system/cpu/intel_pstate/no_turbo`, as root, where steady beats fast"
                 : "`echo 0 > /sys/devices/system/cpu/cpufreq/boost`, as root, where steady beats fast"};
}

Advice siblings(const std::string& root) {
  const std::string topic = "SMT siblings",
                    why = "two threads of one core share its arithmetic: together they reach one core's peak";
  int shared = 0, known = 0;
  for (const auto& processor : processors(root)) {
    const auto list = first_line(processor + "/topology/thread_siblings_list");
    if (!list) continue;
    ++known;
    shared += list->find_first_of(",-") != std::string::npos;
  }
  if (known == 0) return unreadable(topic, "/sys/devices/system/cpu/cpu*/topology/thread_siblings_list", why);
  if (shared == 0) return {Verdict::fine, topic, fmt::format("none among {} processors", known), why, ""};
  return {Verdict::improve, topic, fmt::format("{} of {} processors share a core with another", shared, known), why,
          fmt::format("measure with --threads up to {} (distinct cores come first), or switch SMT off", known - shared / 2)};
}

Advice huge_pages(const std::string& root) {
  const std::string topic = "huge pages",
                    why = "large arrays in 4 KiB pages miss the TLB; attnbench asks for huge pages from 4 MiB on";
  const std::string path = "/sys/kernel/mm/transparent_hugepage/enabled";
  const auto line = first_line(root + path);
  if (!line) return unreadable(topic, path, why);
  const auto open = line->find('['), close = line->find(']');
  const std::string chosen =
      open == std::string::npos || close == std::string::npos ? *line : line->substr(open + 1, close - open - 1);
  if (chosen == "madvise" || chosen == "always") return {Verdict::fine, topic, chosen, why, ""};
  return {Verdict::improve, topic, chosen, why, "`echo madvise > " + path + "`, as root"};
}

Advice quota(const std::string& root) {
  const std::string topic = "cgroup quota", why = "a quota stops all threads for the rest of each period once it is used up";
  double limit = 0, period = 0;
  if (const auto v2 = first_line(root + "/sys/fs/cgroup/cpu.max")) {
    const auto space = v2->find(' ');
    if (v2->substr(0, space) == "max") return {Verdict::fine, topic, "none", why, ""};
    const auto a = parse_number(v2->substr(0, space));
    const auto b = parse_number(space == std::string::npos ? "" : v2->substr(space + 1));
    if (!a || !b) return unreadable(topic, "/sys/fs/cgroup/cpu.max", why);
    limit = *a, period = *b;
  } else {
    const auto us = first_line(root + "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    const auto of = first_line(root + "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    const auto a = us ? parse_number(*us) : refuse(""), b = of ? parse_number(*of) : refuse("");
    if (!a || !b) return unreadable(topic, "/sys/fs/cgroup/cpu.max", why);
    if (*a < 0) return {Verdict::fine, topic, "none", why, ""};
    limit = *a, period = *b;
  }
  const double granted = period > 0 ? limit / period : 0;
  return {Verdict::improve, topic, fmt::format("{:g} processors", granted), why,
          fmt::format("measure with --threads below {:g}, or lift the quota of the container", granted)};
}

Advice onednn_runtime() {
  const std::string topic = "oneDNN runtime",
                    why = "attnbench runs oneDNN on one thread a worker; another pool beside TBB fights for cores";
  const std::string runtime = kernels::onednn_runtime();
  if (runtime != "openmp") return {Verdict::fine, topic, runtime, why, ""};
  return {Verdict::fine, topic, runtime + ", held to one thread a worker", why, ""};
}

Advice spinning() {
  const std::string topic = "spinning OpenMP threads",
                    why = "threads of an OpenMP pool that wait actively take cores from the arena";
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  const std::string policy = variable("OMP_WAIT_POLICY"), spins = variable("GOMP_SPINCOUNT"), block = variable("KMP_BLOCKTIME");
  std::vector<std::string> found;
  if (policy == "active" || policy == "ACTIVE") found.push_back("OMP_WAIT_POLICY=" + policy);
  if (!spins.empty() && spins != "0") found.push_back("GOMP_SPINCOUNT=" + spins);
  if (!block.empty() && block != "0") found.push_back("KMP_BLOCKTIME=" + block);
  if (found.empty()) return {Verdict::fine, topic, "no variable asks for them", why, ""};
  return {Verdict::improve, topic, join(found, ", "), why, "`export OMP_WAIT_POLICY=passive` and unset the others"};
}

}  // namespace

std::vector<Advice> examine(const std::string& root) {
  return {load(root),     steal(root), memory_pressure(root), governor(root),   turbo(root),
          siblings(root), quota(root), huge_pages(root),      onednn_runtime(), spinning()};
}

std::string advice_text(const std::vector<Advice>& advice) {
  std::string text;
  for (const Advice& a : advice) {
    const char* mark = a.verdict == Verdict::improve ? "improve" : a.verdict == Verdict::fine ? "fine" : "unknown";
    text += fmt::format("{:<8} {}: {}. Why: {}.{}\n", mark, a.topic, a.found, a.why, a.todo.empty() ? "" : " Do: " + a.todo + ".");
  }
  const auto count = std::count_if(advice.begin(), advice.end(), [](const Advice& a) { return a.verdict == Verdict::improve; });
  return text + fmt::format("{} of {} could be better\n", count, advice.size());
}

}  // namespace attn
