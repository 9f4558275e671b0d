// The bf16 tile by AVX512_BF16. Highway 1.0.3 has no target with it: the target is named here, and machine/compute.hpp asks the machine.
#include "attn/kernels/softmax/tile_bf16.hpp"

#include "attn/core/assert.hpp"
#include "attn/kernels/machine/compute.hpp"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // of g++ 12's own headers; so below
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include "attn/kernels/machine/bf16_target_begin-inl.hpp"
#include "attn/kernels/softmax/tile_bf16-inl.hpp"
#include "attn/kernels/softmax/tile_sight.hpp"

namespace attn::kernels {
namespace {

alignas(64) constexpr std::uint16_t interleave[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

struct Avx512Bf16 {
  using V = __m512;
  using I = __m512i;

  ATTN_BF16_INLINE V zero() { return _mm512_setzero_ps(); }
  ATTN_BF16_INLINE V set(float x) { return _mm512_set1_ps(x); }
  ATTN_BF16_INLINE V load(const float* from) { return _mm512_load_ps(from); }
  ATTN_BF16_INLINE void store(float* to, V x) { _mm512_store_ps(to, x); }
  ATTN_BF16_INLINE V load_unaligned(const std::byte* from) { return _mm512_loadu_ps(from); }
  ATTN_BF16_INLINE void store_unaligned(float* to, V x) { _mm512_storeu_ps(to, x); }
  ATTN_BF16_INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
  ATTN_BF16_INLINE V mul(V a, V b) { return _mm512_mul_ps(a, b); }
  ATTN_BF16_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  ATTN_BF16_INLINE V max_number(V score, V so_far) { return _mm512_max_ps(score, so_far); }
  ATTN_BF16_INLINE V select(std::uint16_t lanes, V yes, V no) { return _mm512_mask_mov_ps(no, lanes, yes); }
  ATTN_BF16_INLINE std::uint16_t not_at_most(V x, float limit) { return _mm512_cmp_ps_mask(x, set(limit), _CMP_NLE_UQ); }
  ATTN_BF16_INLINE std::uint16_t not_at_least(V x, float limit) { return _mm512_cmp_ps_mask(x, set(limit), _CMP_NGE_UQ); }
  ATTN_BF16_INLINE std::uint16_t number(V x) { return _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q); }

  ATTN_BF16_INLINE I ones() { return _mm512_set1_epi32(0x3f803f80); }
  ATTN_BF16_INLINE I load_pairs(const std::uint32_t* from) { return _mm512_load_si512(from); }
  ATTN_BF16_INLINE void store_pairs(std::uint32_t* to, I pairs) { _mm512_store_si512(to, pairs); }
  ATTN_BF16_INLINE I set_pair(std::uint32_t pair) { return _mm512_set1_epi32(static_cast<int>(pair)); }
  ATTN_BF16_INLINE I pair(const std::byte* from) {
    std::uint32_t pair;
    std::memcpy(&pair, from, sizeof pair);
    return set_pair(pair);
  }
  ATTN_BF16_INLINE I low(const std::byte* from) {
    std::uint16_t low;
    std::memcpy(&low, from, sizeof low);
    return set_pair(low);
  }
  ATTN_BF16_INLINE I keep(I pairs, std::uint16_t even, std::uint16_t odd) {
    return _mm512_and_si512(
        pairs, _mm512_mask_mov_epi16(_mm512_maskz_set1_epi32(even, 0xffff), 0xaaaaaaaa, _mm512_maskz_set1_epi32(odd, -1)));
  }
  // Of numbers that are not below zero: those whose exponent is no larger than `by` become zero, or denormal, which `dot` takes for zero.
  ATTN_BF16_INLINE I less_exponents(I pairs, I by) { return _mm512_subs_epu16(pairs, by); }
  ATTN_BF16_INLINE V dot(V c, I a, I b) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
  ATTN_BF16_INLINE I round(V even, V odd) {
    return _mm512_permutexvar_epi16(_mm512_load_si512(interleave), (I)_mm512_cvtne2ps_pbh(odd, even));
  }

  // 7.5e-5, a 26th of what rounding to bf16 is off by at most.
  ATTN_BF16_INLINE V exp2(V x) {
    const V r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);
    V p = fma(set(7.80245227e-2f), r, set(2.26067155e-1f));
    p = fma(p, r, set(6.95833541e-1f));
    p = fma(p, r, set(9.99925219e-1f));
    return _mm512_scalef_ps(p, x);
  }

  ATTN_BF16_INLINE void transpose(V (&r)[16]) {
    V t[16];
    ATTN_BF16_UNROLL for (int i = 0; i < 16; i += 2) {
      t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]), t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    ATTN_BF16_UNROLL for (int i = 0; i < 16; i += 4) {
      r[i] = join_low(t[i], t[i + 2]), r[i + 1] = join_high(t[i], t[i + 2]);
      r[i + 2] = join_low(t[i + 1], t[i + 3]), r[i + 3] = join_high(t[i + 1], t[i + 3]);
    }
    ATTN_BF16_UNROLL for (int i = 0; i < 4; ++i) {
      t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88), t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
      t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88), t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    ATTN_BF16_UNROLL for (int i = 0; i < 4; ++i) {
      r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88), r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
      r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88), r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
  }

 private:
  ATTN_BF16_INLINE V join_low(V a, V b) { return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))); }
  ATTN_BF16_INLINE V join_high(V a, V b) { return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))); }
};

const TileOps& ops_by_instruction(int vectors) { return bf16_ops_for<Avx512Bf16>(vectors); }

void dot_by_instruction(const float* c, const bf16* a, const bf16* b, float* to) {
  _mm512_storeu_ps(to, Avx512Bf16::dot(_mm512_loadu_ps(c), _mm512_loadu_si512(a), _mm512_loadu_si512(b)));
}

alignas(64) constexpr std::uint16_t pack_low[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                    8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
alignas(64) constexpr std::uint16_t pack_high[32] = {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
                                                     24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63};

// The columns that are whole vectors of 32; returns how many.
index_t pack_by_vectors(const std::byte* even, const std::byte* odd, index_t n, std::uint32_t* to) {
  const __m512i low = _mm512_load_si512(pack_low), high = _mm512_load_si512(pack_high);
  index_t x = 0;
  for (; x + 32 <= n; x += 32) {
    const __m512i a = _mm512_loadu_si512(even + 2 * x), b = _mm512_loadu_si512(odd + 2 * x);
    _mm512_storeu_si512(to + x, _mm512_permutex2var_epi16(a, low, b));
    _mm512_storeu_si512(to + x + 16, _mm512_permutex2var_epi16(a, high, b));
  }
  return x;
}

}  // namespace
}  // namespace attn::kernels

#include "attn/kernels/machine/bf16_target_end-inl.hpp"

namespace attn::kernels {

const TileOps& bf16_tile_ops(int vectors) { return has_bf16_dot() ? ops_by_instruction(vectors) : emulated_bf16_tile_ops(vectors); }

void bf16_dot(const float* c, const bf16* a, const bf16* b, float* to) {
  ATTN_ASSERT(has_bf16_dot());
  dot_by_instruction(c, a, b, to);
}

}  // namespace attn::kernels

#else  // no x86: the emulation alone

namespace attn::kernels {
namespace {
index_t pack_by_vectors(const std::byte*, const std::byte*, index_t, std::uint32_t*) { return 0; }
}  // namespace
const TileOps& bf16_tile_ops(int vectors) { return emulated_bf16_tile_ops(vectors); }
void bf16_dot(const float*, const bf16*, const bf16*, float*) { ATTN_ASSERT(false && "this machine has no vdpbf16ps"); }
}  // namespace attn::kernels

#endif

#include <cstring>

namespace attn::kernels {

void pack_pairs(const std::byte* const* rows, index_t count, index_t n, std::uint32_t* to, index_t stride) {
  ATTN_ASSERT(count % 2 == 0);
  const bool by_vectors = has_bf16_dot();
  for (index_t j = 0; j < count; j += 2, to += stride) {
    index_t x = by_vectors ? pack_by_vectors(rows[j], rows[j + 1], n, to) : 0;
    for (; x < n; ++x) {
      std::uint16_t pair[2];
      std::memcpy(pair, rows[j] + 2 * x, 2);
      std::memcpy(pair + 1, rows[j + 1] + 2 * x, 2);
      to[x] = pair[0] | std::uint32_t{pair[1]} << 16;
    }
  }
}

}  // namespace attn::kernels
