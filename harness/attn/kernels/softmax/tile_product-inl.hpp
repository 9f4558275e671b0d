// The tile's products: rows of K or V by scalar broadcast against vectors of queries or weights; included once per instruction set.
#if defined(ATTN_KERNELS_TILE_PRODUCT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_TILE_PRODUCT_INL
#undef ATTN_KERNELS_TILE_PRODUCT_INL
#else
#define ATTN_KERNELS_TILE_PRODUCT_INL
#endif
#include <hwy/highway.h>

#include <limits>

#include "attn/kernels/dense/transpose-inl.hpp"
#include "attn/kernels/machine/exp-inl.hpp"
#include "attn/kernels/softmax/tile.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Mask = hn::Mask<F>;
inline constexpr index_t L = hn::MaxLanes(F());
inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float log2_e = 1.44269504f;

HWY_INLINE const float* floats_at(const std::byte* row) { return reinterpret_cast<const float*>(row); }

template <int W>
HWY_INLINE void load_row(const float* from, V (&to)[W]) {
  ATTN_UNROLL for (int w = 0; w < W; ++w) to[w] = hn::Load(F(), from + w * L);
}

// The larger of both, or `so_far` where `score` is NaN.
HWY_INLINE V larger(V score, V so_far) {
#if HWY_TARGET == HWY_SCALAR
  return V(score.raw > so_far.raw ? score.raw : so_far.raw);
#else
  return hn::Max(score, so_far);
#endif
}

HWY_INLINE Mask lane_mask(std::uint64_t lanes, int w) {
  const F d;
#if HWY_TARGET == HWY_AVX3
  (void)d;
  return Mask{static_cast<__mmask16>(lanes >> (16 * w))};
#else
  std::uint8_t bits[8] = {};
  const std::uint64_t own = lanes >> (static_cast<std::uint64_t>(w) * L);
  for (int b = 0; b < 8; ++b) bits[b] = static_cast<std::uint8_t>(own >> (8 * b));
  return hn::LoadMaskBits(d, bits);
#endif
}

// Rows on their way into L2, a line at a time: a burst stalls the loads behind it, since the core has room for 16 lines under way.
// In the order in which they lie, so that the hardware's own prefetching joins in (line 0 of each row, line 1, ...: 2 to 4 % slower).
// g++ 12 takes a function that holds nothing but a prefetch for pure and drops its calls: this one has a state.
class Lines {
 public:
  Lines() = default;
  Lines(const std::byte* const* rows, index_t count, index_t floats)
      : row_(rows), end_(rows + count), bytes_(float_bytes * floats), left_(bytes_) {
    if (count > 0) line_ = *rows;
  }
  HWY_INLINE bool any() const { return row_ != end_; }
  HWY_INLINE void bring_in_next() {
    __builtin_prefetch(line_, 0, 2);
    constexpr index_t line = 64;
    line_ += line;
    left_ -= line;
    if (left_ > 0 || ++row_ == end_) return;
    line_ = *row_;
    left_ = bytes_;
  }

 private:
  static constexpr index_t float_bytes = sizeof(float);

  const std::byte* const* row_ = nullptr;
  const std::byte* const* end_ = nullptr;
  const std::byte* line_ = nullptr;
  index_t bytes_ = 0, left_ = 0;
};

// c[i] += rows[i][0..n) * b[0..n)[lanes]: R scalar broadcasts against W vectors, which follow each other every `stride` vectors.
// With kFetch, brings in the R rows of `fetch` meanwhile.
template <int R, int W, int kStride, bool kFetch>
HWY_INLINE void multiply_rows(const std::byte* const* rows, const float* b, index_t n, V (&c)[R][W],
                              const std::byte* const* fetch = nullptr) {
  const F d;
  const float* row[R];
  ATTN_UNROLL for (int i = 0; i < R; ++i) row[i] = floats_at(rows[i]);
  constexpr int apart = 16 / R;  // multiplications between lines
  Lines lines(fetch, kFetch ? R : 0, n);
  index_t x = 0;
  if constexpr (R * W <= 8 && HWY_TARGET == HWY_AVX3) {
    // 8 chains of latency 4 on 2 ports leave no slack: even and odd x apart.
    V odd[R];
    ATTN_UNROLL for (int i = 0; i < R; ++i) odd[i] = hn::Zero(d);
    for (; x + 2 <= n; x += 2) {
      const V b0 = hn::Load(d, b), b1 = hn::Load(d, b + kStride * L);
      b += L * 2 * kStride;
      if constexpr (kFetch) lines.bring_in_next();
      ATTN_UNROLL for (int i = 0; i < R; ++i) {
        c[i][0] = hn::MulAdd(hn::Set(d, row[i][x]), b0, c[i][0]);
        odd[i] = hn::MulAdd(hn::Set(d, row[i][x + 1]), b1, odd[i]);
      }
    }
    ATTN_UNROLL for (int i = 0; i < R; ++i) c[i][0] = hn::Add(c[i][0], odd[i]);
  }
  const auto multiply = [&](index_t at) HWY_ATTR {
    V lane[W];
    load_row<W>(b, lane);
    b += kStride * L;
    ATTN_UNROLL for (int i = 0; i < R; ++i) {
      const V a = hn::Set(d, row[i][at]);
      ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = hn::MulAdd(a, lane[w], c[i][w]);
    }
  };
  if constexpr (kFetch) {
    for (; x + apart <= n; x += apart) {
      lines.bring_in_next();
      ATTN_UNROLL for (int i = 0; i < apart; ++i) multiply(x + i);
    }
  }
  _Pragma("GCC unroll 4") for (; x < n; ++x) multiply(x);
}

// c[i][w] += sum_j rows[j][x + i] * p[j * stride, vector w] for kFrom <= w < kEnd. Every other key brings in one of `lines`.
template <int R, int W, int kFrom, int kEnd>
HWY_INLINE void multiply_columns(const std::byte* const* rows, index_t x, const float* p, index_t stride, index_t n, V (&c)[R][W],
                                 Lines& lines) {
  const F d;
  const auto multiply = [&](index_t j) HWY_ATTR {
    const float* a = floats_at(rows[j]) + x;
    asm("" : "+r"(a));  // else g++ 12 keeps x, x + 1, ... in registers that it does not have
    V lane[W];
    load_row<W>(p, lane);
    p += stride;
    ATTN_UNROLL for (int i = 0; i < R; ++i) {
      const V value = hn::Set(d, a[i]);
      ATTN_UNROLL for (int w = kFrom; w < kEnd; ++w) c[i][w] = hn::MulAdd(value, lane[w], c[i][w]);
    }
  };
  index_t j = 0;
  for (; j + 2 <= n && lines.any(); j += 2) {
    lines.bring_in_next();
    multiply(j);
    multiply(j + 1);
  }
  for (; j < n; ++j) multiply(j);
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
