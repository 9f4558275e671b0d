#include "attn/measure/memory.hpp"

#include <algorithm>
#include <fstream>
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

index_t number_in(const char* path) {
  std::ifstream file(path);
  index_t value = -1;
  return file >> value ? value : -1;  // "max" reads as none
}

}  // namespace

index_t resident_bytes() { return field_bytes("/proc/self/status", "VmRSS"); }
index_t peak_resident_bytes() { return field_bytes("/proc/self/status", "VmHWM"); }

bool reset_peak_resident() {
  std::ofstream file("/proc/self/clear_refs");
  return static_cast<bool>(file << "5" << std::flush);
}

index_t available_memory_bytes() {
  index_t available = field_bytes("/proc/meminfo", "MemAvailable");
  const index_t limit = number_in("/sys/fs/cgroup/memory.max");
  const index_t used = number_in("/sys/fs/cgroup/memory.current");
  if (limit > 0 && used >= 0) available = std::min(available, std::max<index_t>(0, limit - used));
  return available;
}

}  // namespace attn
