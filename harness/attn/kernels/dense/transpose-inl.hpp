// Between rows and lanes: 4 x L blocks, transposed in registers; included once per instruction set.
#if defined(ATTN_KERNELS_TRANSPOSE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_TRANSPOSE_INL
#undef ATTN_KERNELS_TRANSPOSE_INL
#else
#define ATTN_KERNELS_TRANSPOSE_INL
#endif
#include "attn/kernels/machine/exp-inl.hpp"

#define ATTN_UNROLL _Pragma("GCC unroll 16")

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET != HWY_SCALAR

// The vector whose 128-bit block b is the 4 floats at rows[4b] + x.
template <class D>
HWY_INLINE hn::Vec<D> load_blocks(D d, const float* const* rows, index_t x) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return hn::LoadU(d, rows[0] + x);
  } else {
    const hn::Half<D> half;
    const index_t other = static_cast<index_t>(hn::MaxLanes(half));
    return hn::Combine(d, load_blocks(half, rows + other, x), load_blocks(half, rows, x));
  }
}

// The vector whose 128-bit block b is the 4 floats at from + b * stride.
template <class D>
HWY_INLINE hn::Vec<D> load_blocks(D d, const float* from, index_t stride) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return hn::LoadU(d, from);
  } else {
    const hn::Half<D> half;
    const index_t other = static_cast<index_t>(hn::MaxLanes(half)) / 4 * stride;
    return hn::Combine(d, load_blocks(half, from + other, stride), load_blocks(half, from, stride));
  }
}

// Transposes each 4x4 block of (a, b, c, d) in place.
HWY_INLINE void transpose_blocks(V& a, V& b, V& c, V& e) {
  const F d;
  const hn::RepartitionToWide<hn::RebindToUnsigned<F>> d64;
  const V ab0 = hn::InterleaveLower(d, a, b), ab1 = hn::InterleaveUpper(d, a, b);
  const V ce0 = hn::InterleaveLower(d, c, e), ce1 = hn::InterleaveUpper(d, c, e);
  const auto wide = [&](V v) HWY_ATTR { return hn::BitCast(d64, v); };
  a = hn::BitCast(d, hn::InterleaveLower(d64, wide(ab0), wide(ce0)));
  b = hn::BitCast(d, hn::InterleaveUpper(d64, wide(ab0), wide(ce0)));
  c = hn::BitCast(d, hn::InterleaveLower(d64, wide(ab1), wide(ce1)));
  e = hn::BitCast(d, hn::InterleaveUpper(d64, wide(ab1), wide(ce1)));
}

#endif  // HWY_TARGET != HWY_SCALAR

// to[x * stride + i] = factor[i] * rows[i][x] for i < L, x < n.
HWY_INLINE void rows_to_lanes(const float* const* rows, index_t n, V factor, float* to, index_t stride) {
  const F d;
  index_t x = 0;
#if HWY_TARGET == HWY_AVX3
  // 16 x 16 at a time, so that each line of a row is read once: rows 4 KiB apart would evict each other in between.
  for (; x + 16 <= n; x += 16) {
    V block[4][4];  // [rows 4g..4g+3][c]: 128-bit block b holds column x + 4b + c
    ATTN_UNROLL for (int g = 0; g < 4; ++g) {
      ATTN_UNROLL for (int r = 0; r < 4; ++r) block[g][r] = hn::LoadU(d, rows[4 * g + r] + x);
      transpose_blocks(block[g][0], block[g][1], block[g][2], block[g][3]);
    }
    ATTN_UNROLL for (int c = 0; c < 4; ++c) {
      const __m512 low01 = _mm512_shuffle_f32x4(block[0][c].raw, block[1][c].raw, 0x44),
                   high01 = _mm512_shuffle_f32x4(block[0][c].raw, block[1][c].raw, 0xEE);
      const __m512 low23 = _mm512_shuffle_f32x4(block[2][c].raw, block[3][c].raw, 0x44),
                   high23 = _mm512_shuffle_f32x4(block[2][c].raw, block[3][c].raw, 0xEE);
      const auto put = [&](int b, __m512 column)
                           HWY_ATTR { hn::Store(hn::Mul(V{column}, factor), d, to + (x + 4 * b + c) * stride); };
      put(0, _mm512_shuffle_f32x4(low01, low23, 0x88));
      put(1, _mm512_shuffle_f32x4(low01, low23, 0xDD));
      put(2, _mm512_shuffle_f32x4(high01, high23, 0x88));
      put(3, _mm512_shuffle_f32x4(high01, high23, 0xDD));
    }
  }
#endif
#if HWY_TARGET != HWY_SCALAR
  for (; x + 4 <= n; x += 4) {
    V a = load_blocks(d, rows, x), b = load_blocks(d, rows + 1, x), c = load_blocks(d, rows + 2, x),
      e = load_blocks(d, rows + 3, x);
    transpose_blocks(a, b, c, e);
    hn::Store(hn::Mul(a, factor), d, to + x * stride);
    hn::Store(hn::Mul(b, factor), d, to + (x + 1) * stride);
    hn::Store(hn::Mul(c, factor), d, to + (x + 2) * stride);
    hn::Store(hn::Mul(e, factor), d, to + (x + 3) * stride);
  }
#endif
  if (x == n) return;
  HWY_ALIGN float factors[hn::MaxLanes(F())];
  hn::Store(factor, d, factors);
  for (; x < n; ++x) {
    for (size_t i = 0; i < hn::Lanes(d); ++i) to[x * stride + static_cast<index_t>(i)] = rows[i][x] * factors[i];
  }
}

// rows[i][x] = factor[i] * from[x * stride + i] for i < L, x < n.
HWY_INLINE void lanes_to_rows(const float* from, index_t stride, index_t n, const float* factor, float* const* rows) {
  const F d;
  const index_t lanes = static_cast<index_t>(hn::Lanes(d));
  index_t x = 0;
#if HWY_TARGET != HWY_SCALAR
  // Whole vectors of a row at a time: out is written by the cache line.
  for (; x + lanes <= n; x += lanes) {
    for (index_t i = 0; i < lanes; i += 4) {
      const float* at = from + x * stride + i;
      V a = load_blocks(d, at, 4 * stride), b = load_blocks(d, at + stride, 4 * stride);
      V c = load_blocks(d, at + 2 * stride, 4 * stride), e = load_blocks(d, at + 3 * stride, 4 * stride);
      transpose_blocks(a, b, c, e);
      hn::StoreU(hn::Mul(a, hn::Set(d, factor[i])), d, rows[i] + x);
      hn::StoreU(hn::Mul(b, hn::Set(d, factor[i + 1])), d, rows[i + 1] + x);
      hn::StoreU(hn::Mul(c, hn::Set(d, factor[i + 2])), d, rows[i + 2] + x);
      hn::StoreU(hn::Mul(e, hn::Set(d, factor[i + 3])), d, rows[i + 3] + x);
    }
  }
#endif
  for (; x < n; ++x) {
    for (index_t i = 0; i < lanes; ++i) rows[i][x] = from[x * stride + i] * factor[i];
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
