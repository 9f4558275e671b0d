#include "attn/kernels/dense/gemm_of_pairs.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "attn/core/assert.hpp"
#include "attn/kernels/machine/compute.hpp"
#include "attn/kernels/softmax/tile_bf16.hpp"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of g++ 12's own headers; so below
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include "attn/kernels/machine/bf16_target_begin-inl.hpp"

namespace attn::kernels {
namespace {

constexpr index_t vector = 16;

// R rows by W vectors of the result stay in registers: 6 by 4 are 24 of 32, and a step of 24 products loads 10 times.
template <int R, int W>
__attribute__((noinline)) void multiply(index_t pairs, const bf16* a, index_t a_stride, const std::uint32_t* b, index_t b_stride,
                                        Into c, bool add) {
  __m512 sum[R][W];
  _Pragma("GCC unroll 8") for (int i = 0; i < R; ++i) _Pragma("GCC unroll 4") for (int w = 0; w < W; ++w) {
    sum[i][w] = add ? _mm512_loadu_ps(c.data + i * c.stride + w * vector) : _mm512_setzero_ps();
  }
  for (index_t j = 0; j < pairs; ++j, b += b_stride) {
    __m512i lane[W];
    _Pragma("GCC unroll 4") for (int w = 0; w < W; ++w) lane[w] = _mm512_loadu_si512(b + w * vector);
    _Pragma("GCC unroll 8") for (int i = 0; i < R; ++i) {
      std::int32_t pair = 0;
      std::memcpy(&pair, a + i * a_stride + 2 * j, sizeof pair);
      const __m512i both = _mm512_set1_epi32(pair);
      _Pragma("GCC unroll 4") for (int w = 0; w < W; ++w) sum[i][w] =
          _mm512_dpbf16_ps(sum[i][w], (__m512bh)both, (__m512bh)lane[w]);
    }
  }
  _Pragma("GCC unroll 8") for (int i = 0; i < R; ++i) _Pragma("GCC unroll 4") for (int w = 0; w < W; ++w) {
    _mm512_storeu_ps(c.data + i * c.stride + w * vector, sum[i][w]);
  }
}

template <int W>
void columns(index_t m, index_t k, const bf16* a, index_t a_stride, const std::uint32_t* b, index_t b_stride, Into c, bool add) {
  const auto rows = [&]<int R>(index_t& i) {
    for (; i + R <= m; i += R)
      multiply<R, W>(k / 2, a + i * a_stride, a_stride, b, b_stride, {c.data + i * c.stride, c.stride}, add);
  };
  index_t i = 0;
  rows.template operator()<6>(i);
  rows.template operator()<2>(i);
  rows.template operator()<1>(i);
}

void gemm_by_instruction(index_t m, index_t n, index_t k, const bf16* a, index_t a_stride, const std::uint32_t* b, index_t b_stride,
                         Into c, bool add) {
  for (index_t x = 0; x < n; x += 4 * vector) {
    const Into part{c.data + x, c.stride};
    switch (std::min<index_t>(4, (n - x) / vector)) {
      case 4: columns<4>(m, k, a, a_stride, b + x, b_stride, part, add); break;
      case 3: columns<3>(m, k, a, a_stride, b + x, b_stride, part, add); break;
      case 2: columns<2>(m, k, a, a_stride, b + x, b_stride, part, add); break;
      default: columns<1>(m, k, a, a_stride, b + x, b_stride, part, add);
    }
  }
}

// The elements in whole vectors; returns how many.
index_t round_by_vectors(const float* from, index_t n, bf16* to) {
  index_t x = 0;
  for (; x + vector <= n; x += vector) {
    const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(from + x));
    std::memcpy(to + x, &rounded, sizeof rounded);
  }
  return x;
}

}  // namespace
}  // namespace attn::kernels

#include "attn/kernels/machine/bf16_target_end-inl.hpp"

#else  // no x86: the emulation alone

namespace attn::kernels {
namespace {
void gemm_by_instruction(index_t, index_t, index_t, const bf16*, index_t, const std::uint32_t*, index_t, Into, bool) {
  ATTN_ASSERT(false && "this machine has no vdpbf16ps");
}
index_t round_by_vectors(const float*, index_t, bf16*) { return 0; }
}  // namespace
}  // namespace attn::kernels

#endif

namespace attn::kernels {

void emulated_gemm_of_pairs(index_t m, index_t n, index_t k, const bf16* a, index_t a_stride, const std::uint32_t* b,
                            index_t b_stride, Into c, bool add) {
  constexpr index_t lanes = 16;
  for (index_t i = 0; i < m; ++i) {
    for (index_t x = 0; x < n; x += lanes) {
      float* const sums = c.data + i * c.stride + x;
      if (!add) std::fill_n(sums, lanes, 0.0f);
      for (index_t j = 0; j < k / 2; ++j) {
        std::array<bf16, 2 * lanes> both, columns;
        for (std::size_t lane = 0; lane < lanes; ++lane) std::copy_n(a + i * a_stride + 2 * j, 2, both.begin() + 2 * lane);
        std::memcpy(columns.data(), b + j * b_stride + x, sizeof columns);
        std::array<float, lanes> next;
        emulated_bf16_dot(sums, both.data(), columns.data(), next.data());
        std::copy(next.begin(), next.end(), sums);
      }
    }
  }
}

void gemm_of_pairs(index_t m, index_t n, index_t k, const bf16* a, index_t a_stride, const std::uint32_t* b, index_t b_stride,
                   Into c, bool add) {
  ATTN_ASSERT(n % 16 == 0 && k % 2 == 0 && a_stride % 2 == 0);
  const auto multiply = has_bf16_dot() ? gemm_by_instruction : emulated_gemm_of_pairs;
  multiply(m, n, k, a, a_stride, b, b_stride, c, add);
}

void round_to_bf16(index_t count, index_t n, Rows from, bf16* to, index_t stride) {
  const bool by_vectors = has_bf16_dot();
  for (index_t i = 0; i < count; ++i, from.data += from.stride, to += stride) {
    index_t x = by_vectors ? round_by_vectors(from.data, n, to) : 0;
    for (; x < n; ++x)  // what is below the least normal number is zero, as the instruction has it
      to[x] =
          to_bf16(std::fabs(from.data[x]) < std::numeric_limits<float>::min() ? std::copysign(0.0f, from.data[x]) : from.data[x]);
  }
}

}  // namespace attn::kernels
