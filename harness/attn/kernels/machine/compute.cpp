#include "attn/kernels/machine/compute.hpp"

#include <array>
#include <atomic>
#include <optional>
#include <utility>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "attn/core/isa.hpp"

namespace attn::kernels {

namespace {

constexpr std::array names = {std::pair{Compute::f32, std::string_view("f32")},
                              std::pair{Compute::bf16_dot, std::string_view("bf16_dot")}};

// Rows of a kv head up to which the rows engine is taken. On a Zen 4, M=32768, D=128, one thread: 32 rows of one kv head take 5.0 ms
// there and 90 in the softmax engine, whose lanes are the queries of one head; 64 rows take 10.0 ms, both 0.91 of the FMA peak. More
// was not tried.
constexpr index_t few_rows = 64;

// AVX512_BF16 is bit 5 of EAX in leaf 7, subleaf 1. That the system keeps the registers is chosen_isa's to know.
bool machine_has_bf16_dot() {
#if defined(__x86_64__)
  static const bool has = [] {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 5 & 1) != 0;
  }();
  return has;
#else
  return false;
#endif
}

std::atomic<bool> only_f32 = false;

}  // namespace

std::string_view to_string(Compute compute) { return names[static_cast<std::size_t>(compute)].second; }

Result<Compute> parse_compute(std::string_view name) {
  for (const auto& [compute, own] : names) {
    if (own == name) return compute;
  }
  return refuse("'" + std::string(name) + "' is no compute; accepted: f32, bf16_dot");
}

bool has_bf16_dot() { return chosen_isa() == Isa::avx512 && machine_has_bf16_dot(); }

// Self-attention is left to the softmax engine however short it is, so that a short sequence of a ragged batch is computed as it is
// alone. (One of as many keys as queries, in a batch of few queries and more keys that are no steps, is not.)
bool meets_few_rows(const Problem& p) {
  if (p.mask.given()) return false;
  if (p.pass == Pass::decode) return p.q_len * (p.heads / p.kv_heads) <= few_rows;
  return p.pass == Pass::forward && !p.self_attention() && p.q_len * (p.heads / p.kv_heads) <= few_rows;
}

Compute compute_of(const Problem& p) {
  const bool stored = p.dtype == DType::bf16 && p.kv_dtype == DType::bf16;
  if (!stored || p.mask.given() || p.pass != Pass::forward || meets_few_rows(p) || only_f32.load(std::memory_order_relaxed) ||
      !has_bf16_dot())
    return Compute::f32;
  return Compute::bf16_dot;
}

Status force_compute(std::string_view name) {
  if (name.empty()) return only_f32 = false, Status{};
  const Result<Compute> compute = parse_compute(name);
  if (!compute) return compute.refusal();
  if (*compute == Compute::bf16_dot && !has_bf16_dot())
    return refuse("compute 'bf16_dot' is not available: it needs AVX512_BF16, and avx512 as the instruction set");
  only_f32 = *compute == Compute::f32;
  return {};
}

}  // namespace attn::kernels
