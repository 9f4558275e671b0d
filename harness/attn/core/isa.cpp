#include "attn/core/isa.hpp"

#include <algorithm>
#include <atomic>

#include "attn/core/assert.hpp"

namespace attn {

namespace {

std::atomic<Isa>& choice() {
  static std::atomic<Isa> isa = machine_isas().front();
  return isa;
}

}  // namespace

std::string to_string(Isa isa) {
  switch (isa) {
    case Isa::scalar: return "scalar";
    case Isa::neon: return "neon";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
  }
  return "unknown";
}

std::vector<Isa> machine_isas() {
  std::vector<Isa> list;
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    list.push_back(Isa::avx512);
  }
  if (avx2) list.push_back(Isa::avx2);
#elif defined(__aarch64__)
  list.push_back(Isa::neon);
#endif
  list.push_back(Isa::scalar);
  return list;
}

Isa chosen_isa() { return choice().load(std::memory_order_relaxed); }

void choose_isa(Isa isa) {
  const auto list = machine_isas();
  ATTN_ASSERT(std::find(list.begin(), list.end(), isa) != list.end());
  choice().store(isa, std::memory_order_relaxed);
}

}  // namespace attn
