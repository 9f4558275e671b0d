#include "attn/measure/doctor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

#include "attn/core/text.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/openmp.hpp"
#include "attn/kernels/dense/onednn.hpp"
#include "attn/kernels/machine/low_precision.hpp"
#include "attn/measure/machine_state.hpp"
#include "attn/measure/meters.hpp"

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

Advice allowed(const Limits& limits) {
  const std::string topic = "processors",
                    why = "threads beyond the allowed processors take turns on them, and times say nothing of more cores";
  if (limits.processors == 0) return unreadable(topic, "/sys/devices/system/cpu/online", why);
  if (limits.allowed.empty())
    return {Verdict::unsupported, topic,
            fmt::format("{}; the system refuses to tell which of them are allowed",
                        counted(static_cast<std::size_t>(limits.processors), "processor")),
            "without it threads cannot be pinned, nor caches be read", ""};
  const std::string found = fmt::format("{} of {} allowed", limits.allowed.size(), limits.processors);
  if (limits.allowed_by.empty()) return {Verdict::fine, topic, found, why, ""};
  return {Verdict::improve, topic, found + ", by " + limits.allowed_by, why,
          fmt::format("measure with --threads up to {}, or start attnbench with more", limits.allowed.size())};
}

Advice quota(const Limits& limits) {
  const std::string topic = "cgroup quota", why = "a quota stops all threads for the rest of each period once it is used up";
  if (!limits.unread.empty()) return {Verdict::unsupported, topic, "unsupported: " + join(limits.unread, "; "), why, ""};
  if (!limits.quota) return {Verdict::fine, topic, "none", why, ""};
  const std::string found = fmt::format("{:g} processor{}, by {}", *limits.quota, *limits.quota == 1 ? "" : "s", limits.quota_by);
  const std::string lift = "lift the quota of the container";
  if (*limits.quota < 1) return {Verdict::improve, topic, found, why, lift + ": one thread alone uses it up"};
  return {Verdict::improve, topic, found, why, fmt::format("measure with --threads up to {}, or {}", limits.usable_cores(), lift)};
}

Advice memory(const Limits& limits) {
  const std::string topic = "memory", why = "workers get four fifths of it unless --memory-limit says otherwise";
  if (!limits.memory_bytes) return unreadable(topic, "/proc/meminfo", why);
  constexpr index_t gibi = index_t{1} << 30;
  const double gibis = static_cast<double>(*limits.memory_bytes) / static_cast<double>(gibi);
  const std::string found = fmt::format("{:.2f} GiB available, by {}", gibis, limits.memory_by);
  if (*limits.memory_bytes >= gibi) return {Verdict::fine, topic, found, why, ""};
  return {Verdict::improve, topic, found, why,
          "raise that limit or end what holds the memory: the machine's peaks alone take 0.2 GiB"};
}

// Whether /proc is there at all: a container need not mount it.
Advice process_files(const std::string& root) {
  const std::string topic = "/proc", why = "memory meters, load, steal time and control groups are read there";
  if (std::filesystem::exists(root + "/proc/self/status")) return {Verdict::fine, topic, "mounted", why, ""};
  return {Verdict::improve, topic, "there is no /proc/self/status", why, "mount it: `mount -t proc proc /proc`, as root"};
}

// Arithmetic on small numbers: nothing to do about what a machine lacks, but rows in bf16 are slower without.
std::vector<Advice> small_numbers() {
  std::vector<Advice> list;
  for (const kernels::Ability& ability : kernels::low_precision(kernels::this_machine())) {
    const bool used = ability.name != "AMX";
    list.push_back({Verdict::fine, ability.name,
                    !ability.missing.empty() ? "none: " + ability.missing
                    : used                   ? "there"
                                             : "there, and no kernel uses it",
                    "rows of bf16 and f16 are stored by --dtype and --kv-dtype whatever the machine has; this makes them faster",
                    ""});
  }
  return list;
}

// Nothing to do about what a machine does not show.
Advice meter(const std::string& topic, const std::string& unsupported, const std::string& why) {
  return {Verdict::fine, topic, unsupported.empty() ? "there" : "none: " + unsupported, why, ""};
}

Advice onednn_runtime() {
  const std::string topic = "oneDNN runtime",
                    why = "attnbench runs oneDNN on one thread a worker; another pool beside TBB fights for cores";
  const std::string runtime = kernels::onednn_runtime();
  if (runtime != "openmp") return {Verdict::fine, topic, runtime, why, ""};
  return {Verdict::fine, topic, runtime + ", held to one thread a worker", why, ""};
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Advice openmp_binding() {
  const std::string topic = "OpenMP binding",
                    why = "an OpenMP runtime that binds threads puts all of them on the first one's processor";
  if (const auto dropped = dropped_openmp_binding(); !dropped.empty())
    return {Verdict::fine, topic, join(dropped, ", ") + ", taken out of the environment", why, ""};
  std::vector<std::string> found;
  for (const char* name : {"OMP_PLACES", "OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"}) {
    if (!variable(name).empty()) found.push_back(std::string(name) + "=" + variable(name));
  }
  if (found.empty()) return {Verdict::fine, topic, "no variable asks for it", why, ""};
  return {Verdict::improve, topic, join(found, ", "), why, "unset them"};
}

Advice spinning() {
  const std::string topic = "spinning OpenMP threads",
                    why = "threads of an OpenMP pool that wait actively take cores from the arena";
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
  const Limits limits = read_limits(root);
  std::vector<Advice> list = {
      load(root),     steal(root), allowed(limits), quota(limits),    memory(limits),   memory_pressure(root), process_files(root),
      governor(root), turbo(root), siblings(root),  huge_pages(root), onednn_runtime(), openmp_binding(),      spinning()};
  list.push_back(meter("counters", EventMeter(root).unsupported(), "columns cycles, instructions and llc_misses are read there"));
  list.push_back(meter("energy", EnergyMeter(root).unsupported(), "the column joules is read there"));
  const std::vector<Advice> numbers = small_numbers();
  list.insert(list.end(), numbers.begin(), numbers.end());
  return list;
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
