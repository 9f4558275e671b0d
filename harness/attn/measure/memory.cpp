#include "attn/measure/memory.hpp"

#include <fstream>
#include <string>

#include "attn/exec/limits.hpp"

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

}  // namespace

index_t resident_bytes() { return field_bytes("/proc/self/status", "VmRSS"); }
index_t peak_resident_bytes() { return field_bytes("/proc/self/status", "VmHWM"); }

bool reset_peak_resident() {
  std::ofstream file("/proc/self/clear_refs");
  return static_cast<bool>(file << "5" << std::flush);
}

index_t default_memory_limit_bytes() { return available_memory_bytes() / 5 * 4; }

}  // namespace attn
