#include "attn/measure/memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace attn {

namespace {

// Value in bytes of a "Name:   123 kB" line; -1 when absent.
index_t field_bytes(const char* path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::stoll(line.substr(name.size() + 1)) * 1024;
  }
  return -1;
}

index_t number_in(const std::string& path) {
  std::ifstream file(path);
  index_t value = -1;
  return file >> value ? value : -1;  // "max" reads as none
}

// What the limits of this process's cgroups leave: its own and those around it, version 2 and version 1.
index_t left_by_cgroups() {
  index_t left = std::numeric_limits<index_t>::max();
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // ID:CONTROLLERS:PATH
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool version_2 = controllers.empty();
    if (!version_2 && controllers != "memory") continue;
    const std::string root = version_2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
      if (path == "/") path.clear();
      const index_t limit = number_in(root + path + (version_2 ? "/memory.max" : "/memory.limit_in_bytes"));
      const index_t used = number_in(root + path + (version_2 ? "/memory.current" : "/memory.usage_in_bytes"));
      if (limit > 0 && used >= 0) left = std::min(left, std::max<index_t>(0, limit - used));
      if (path.empty()) break;
    }
  }
  return left;
}

}  // namespace

index_t resident_bytes() { return field_bytes("/proc/self/status", "VmRSS"); }
index_t peak_resident_bytes() { return field_bytes("/proc/self/status", "VmHWM"); }

bool reset_peak_resident() {
  std::ofstream file("/proc/self/clear_refs");
  return static_cast<bool>(file << "5" << std::flush);
}

index_t available_memory_bytes() { return std::min(field_bytes("/proc/meminfo", "MemAvailable"), left_by_cgroups()); }

index_t default_memory_limit_bytes() { return available_memory_bytes() / 5 * 4; }

}  // namespace attn
