#include "attn/record/context.hpp"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/openmp.hpp"
#include "attn/exec/topology.hpp"
#include "attn/kernels/dense/onednn.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/record/build_info.hpp"
#include "attn/record/commit.hpp"
#include "attn/record/sink.hpp"

namespace attn {

using json = nlohmann::ordered_json;

namespace {

// First line of a file that the kernel may or may not offer.
std::string file_or_reason(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file) return "unsupported: no " + path;
  if (!std::getline(file, line) || line.empty()) return "unsupported: " + path + " is empty";
  return line;
}

// Of the first processor: "model name", "stepping".
std::string cpu_fact(const std::string& name) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::string_view text = line;
    const auto colon = text.find(':');
    if (colon != std::string_view::npos && trim(text.substr(0, colon)) == name) return std::string(trim(text.substr(colon + 1)));
  }
  return "unsupported: /proc/cpuinfo names no " + name;
}

// Slurm may play several nodes on one host.
std::string node_name() {
  const char* slurm = std::getenv("SLURMD_NODENAME");
  return slurm != nullptr && *slurm != '\0' ? slurm : host_name();
}

json environment_that_matters() {
  json list = json::object();
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    for (const std::string_view prefix :
         {"ATTN_", "OMP_", "GOMP_", "KMP_", "TBB_", "DNNL_", "ONEDNN_", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"}) {
      if (text.substr(0, prefix.size()) != prefix) continue;
      const auto equals = text.find('=');
      list[std::string(text.substr(0, equals))] = std::string(text.substr(equals + 1));
    }
  }
  return list;
}

json describe(const Peak& peak) { return json::parse(to_json(peak)); }

json describe(const ColumnInfo& column) {
  json j = {{"name", column.name},
            {"doc", column.doc},
            {"role", to_string(column.role)},
            {"holds", to_string(column.holds)},
            {"better", to_string(column.better)}};
  if (!column.unit.empty()) j["unit"] = column.unit;
  if (!column.usual.empty()) j["usual"] = column.usual;
  return j;
}

json machine_facts() {
  utsname system{};
  ::uname(&system);
  const Topology& t = topology();
  json caches = json::array();
  for (const Cache& cache : t.caches)
    caches.push_back({{"level", cache.level}, {"bytes", cache.bytes}, {"shared_by", cache.shared_by_cores}});
  const Limits limits = read_limits();
  const auto unsupported = [](const char* why) { return json(std::string("unsupported: ") + why); };
  return {
      {"host", host_name()},
      {"node", node_name()},
      {"cpu", cpu_fact("model name")},
      {"stepping", cpu_fact("stepping")},
      {"microcode", cpu_fact("microcode")},
      {"packages", t.packages},
      {"cores", t.cores},
      {"processors", t.processors},
      {"numa_nodes", t.numa_nodes},
      {"caches", caches},
      {"usable_cores", limits.usable_cores()},
      {"processors_allowed", limits.allowed.empty() ? unsupported("the affinity mask is refused") : json(limits.allowed.size())},
      {"processors_allowed_by", limits.allowed_by},
      {"cpu_quota", limits.quota ? json(*limits.quota) : json("none")},
      {"cpu_quota_by", limits.quota_by},
      {"memory_available_bytes", limits.memory_bytes ? json(*limits.memory_bytes) : unsupported("no /proc/meminfo and no limit")},
      {"memory_available_by", limits.memory_by},
      {"isas", kernels::available_isas()},
      {"isa_used", kernels::active_isa()},
      {"kernel", std::string(system.sysname) + " " + system.release + " " + system.machine},
      {"governor", file_or_reason("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")},
      {"smt", file_or_reason("/sys/devices/system/cpu/smt/control")},
      {"transparent_hugepages", file_or_reason("/sys/kernel/mm/transparent_hugepage/enabled")},
      {"load_average", file_or_reason("/proc/loadavg")},
  };
}

}  // namespace

std::string context_path(const std::string& csv) {
  const std::string suffix = ".csv";
  const bool has_suffix = csv.size() > suffix.size() && csv.compare(csv.size() - suffix.size(), suffix.size(), suffix) == 0;
  return (has_suffix ? csv.substr(0, csv.size() - suffix.size()) : csv) + ".context.json";
}

std::string context_json(const std::vector<std::string>& command_line, const std::vector<Peak>& peaks,
                         const std::vector<ColumnInfo>& columns, int version, const std::string& asked) {
  json measured = json::array();
  for (const Peak& peak : peaks) measured.push_back(describe(peak));
  json described = json::array();
  for (const ColumnInfo& column : columns) described.push_back(describe(column));

  const json context = {
      {"context_schema", 2},
      {"date", utc_now()},
      {"command_line", shell_quoted(command_line)},
      {"asked", json::parse(asked)},
      {"attnbench", {{"version", build_info::version}, {"commit", source_commit()}, {"build_tag", build_tag()}}},
      {"machine", machine_facts()},
      {"build", {{"compiler", build_info::compiler}, {"flags", build_info::flags}, {"build_type", build_info::build_type}}},
      {"libraries",
       {{"onednn", kernels::onednn_version()},
        {"onednn_runtime", kernels::onednn_runtime()},
        {"tbb", build_info::tbb},
        {"highway", build_info::highway},
        {"google_benchmark", build_info::google_benchmark},
        {"fmt", build_info::fmt},
        {"hwloc", build_info::hwloc}}},
      {"environment", environment_that_matters()},
      {"environment_dropped", dropped_openmp_binding()},
      {"peaks", measured},
      {"csv_schema", version},
      {"columns", described},
  };
  return context.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<std::vector<Peak>> peaks_of(const std::string& path) {
  const Result<std::string> text = read_file(path);
  if (!text) return text.refusal();
  try {
    const json context = json::parse(*text), here = machine_facts();
    for (const char* fact : {"cpu", "packages", "cores", "usable_cores", "caches", "cpu_quota"}) {
      if (const json& there = context.at("machine").at(fact); there != here.at(fact))
        return refuse(path + " is of another machine: " + fact + " is " + there.dump() + ", here " + here.at(fact).dump());
    }
    std::vector<Peak> peaks;
    for (const json& peak : context.at("peaks")) peaks.push_back(peak_from_json(peak.dump()));
    return peaks;
  } catch (const json::exception&) {
    return refuse(path + " is no context of a sweep (the .context.json beside a CSV) with peaks of this version");
  }
}

std::string source_commit() { return ATTN_COMMIT; }

std::string version_text() { return fmt::format("{} commit {}\n{}\n", build_tag(), source_commit(), kernels::onednn_version()); }

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "unsupported: gethostname failed";
}

std::string shell_quoted(const std::vector<std::string>& arguments) {
  std::vector<std::string> parts;
  for (const auto& argument : arguments) {
    const bool plain = !argument.empty() && std::all_of(argument.begin(), argument.end(), [](unsigned char c) {
      return std::isalnum(c) || std::strchr("-_./=:,+@%", c) != nullptr;
    });
    if (plain) {
      parts.push_back(argument);
      continue;
    }
    std::string quoted = "'";
    for (const char c : argument) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    parts.push_back(quoted + "'");
  }
  return join(parts, " ");
}

}  // namespace attn
