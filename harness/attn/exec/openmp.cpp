#include "attn/exec/openmp.hpp"

#include <array>
#include <cstddef>

namespace {

constexpr std::array names = {"OMP_PLACES=", "OMP_PROC_BIND=", "GOMP_CPU_AFFINITY=", "KMP_AFFINITY="};

std::array<const char*, names.size()> dropped{};

bool begins_with(const char* text, const char* name) {
  for (; *name != '\0'; ++text, ++name) {
    if (*text != *name) return false;
  }
  return true;
}

}  // namespace

extern "C" void attn_drop_openmp_binding(char** environment) noexcept {
  char** kept = environment;
  for (char** entry = environment; *entry != nullptr; ++entry) {
    bool keep = true;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!begins_with(*entry, names[i])) continue;
      dropped[i] = *entry;
      keep = false;
    }
    if (keep) *kept++ = *entry;
  }
  *kept = nullptr;
}

namespace attn {

std::vector<std::string> dropped_openmp_binding() {
  std::vector<std::string> list;
  for (const char* variable : dropped) {
    if (variable != nullptr) list.emplace_back(variable);
  }
  return list;
}

}  // namespace attn
