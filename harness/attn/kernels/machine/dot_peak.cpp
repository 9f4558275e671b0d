#include "attn/kernels/machine/dot_peak.hpp"

#include "attn/kernels/machine/compute.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace attn::kernels {

#if defined(__x86_64__)

namespace {

// 16 chains: of a latency of 6 at two a cycle 12 are the minimum, and reach 0.93 of what 16 do on a Zen 5.
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"), noinline)) double probe(index_t iterations) {
  constexpr int chains = 16, lanes = 16;
  const __m512 small = _mm512_set1_ps(0x1p-8f);
  const __m512bh x = _mm512_cvtne2ps_pbh(small, small);
  __m512 sums[chains];
#pragma GCC unroll 16  // all three: one loop over the array as such, and g++ 12 keeps it in memory, at half the rate
  for (int c = 0; c < chains; ++c) sums[c] = _mm512_set1_ps(static_cast<float>(c));
  for (index_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < chains; ++c) sums[c] = _mm512_dpbf16_ps(sums[c], x, x);
#pragma GCC unroll 16
    for (int c = 0; c < chains; ++c) asm volatile("" : "+v"(sums[c]));  // nothing is folded away, and nothing leaves its register
  }
  return static_cast<double>(iterations) * chains * lanes * 2 * 2;
}

}  // namespace

double probe_bf16_dot(index_t iterations) { return has_bf16_dot() ? probe(iterations) : 0; }

#else

double probe_bf16_dot(index_t) { return 0; }

#endif

}  // namespace attn::kernels
