#include "attn/exec/resident.hpp"

#include <fstream>
#include <string>

namespace attn {

namespace {

std::string file_of(pid_t process, const char* name) {
  return "/proc/" + (process == 0 ? std::string("self") : std::to_string(process)) + "/" + name;
}

// Value in bytes of a "Name:   123 kB" line; -1 when absent.
index_t field_bytes(pid_t process, const std::string& name) {
  std::ifstream file(file_of(process, "status"));
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(name + ":", 0) == 0) return std::stoll(line.substr(name.size() + 1)) * 1024;
  }
  return -1;
}

}  // namespace

index_t resident_bytes(pid_t process) { return field_bytes(process, "VmRSS"); }
index_t peak_resident_bytes(pid_t process) { return field_bytes(process, "VmHWM"); }

bool reset_peak_resident(pid_t process) {
  std::ofstream file(file_of(process, "clear_refs"));
  return static_cast<bool>(file << "5" << std::flush);
}

}  // namespace attn
