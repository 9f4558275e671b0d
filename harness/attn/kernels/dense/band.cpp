#include "attn/kernels/dense/band.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/dense/band.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

// Rows at a time share what they read of x (a row meets up to four windows): without, loads would bind.
constexpr int kRows = 4;
constexpr int kWide = HWY_TARGET <= HWY_AVX3 ? 4 : 2;  // vectors side by side: kRows * kWide sums fit the registers

// Rows i .. i + R - 1, W vectors of channels of which the last has `last` lanes. weight(row, tap, vector) -> vector.
template <int R, int W, class Weight>
HWY_INLINE void Window(index_t at, index_t taps, index_t start, const Sequence& x, bool add, const float* channels, float* to,
                       index_t to_stride, index_t last, Weight weight) {
  const F d;
  V sum[R][W];
  for (int q = 0; q < R; ++q)
    for (int v = 0; v < W; ++v)
      sum[q][v] = !add ? hn::Zero(d) : load_first(to + q * to_stride + v * kLanes, v == W - 1 ? last : kLanes);
  // Row q's window is rows start + q .. start + q + taps - 1 of x; all R windows hold those from start + R - 1 on.
  const index_t begin = std::max<index_t>(0, start), end = std::min(x.count, start + R - 1 + taps);
  const index_t all_from = std::clamp(start + R - 1, begin, std::max(begin, end));
  const index_t all_to = std::clamp(start + taps, all_from, std::max(all_from, end));
  const auto meet = [&](index_t row, int q, const V(&values)[W]) HWY_ATTR {
    for (int v = 0; v < W; ++v) sum[q][v] = hn::MulAdd(weight(at + q, row - start - q, v), values[v], sum[q][v]);
  };
  const auto read = [&](index_t row, V(&values)[W]) HWY_ATTR {
    const float* from = channels + row * x.rows.stride;
    for (int v = 0; v < W; ++v) values[v] = load_first(from + v * kLanes, v == W - 1 ? last : kLanes);
  };
  const auto some = [&](index_t from, index_t until) HWY_ATTR {
    for (index_t row = from; row < until; ++row) {
      V values[W];
      read(row, values);
      for (int q = 0; q < R; ++q)
        if (row >= start + q && row < start + q + taps) meet(row, q, values);
    }
  };
  some(begin, all_from);
  for (index_t row = all_from; row < all_to; ++row) {
    V values[W];
    read(row, values);
    for (int q = 0; q < R; ++q) meet(row, q, values);
  }
  some(all_to, end);
  for (int q = 0; q < R; ++q)
    for (int v = 0; v < W; ++v) store_first(sum[q][v], to + q * to_stride + v * kLanes, v == W - 1 ? last : kLanes);
}

// weight(row, tap, channel) -> vector from that channel on.
template <class Weight>
HWY_INLINE void EachWindow(index_t m, index_t n, index_t taps, index_t first, index_t left, const Sequence& x, bool add, Into to,
                           Weight weight) {
  for (index_t i = 0; i < m;) {
    const index_t rows = m - i >= kRows ? kRows : 1, start = first + i - left;
    for (index_t c = 0; c < n;) {
      const index_t vectors = n - c > (kWide - 1) * kLanes ? kWide : 1;
      const index_t last = std::min(kLanes, n - c - (vectors - 1) * kLanes);
      const auto own = [&](index_t row, index_t tap, int v) HWY_ATTR { return weight(row, tap, c + v * kLanes); };
      float* o = to.data + i * to.stride + c;
      const float* channels = x.rows.data + c;
      if (rows > 1 && vectors > 1)
        Window<kRows, kWide>(i, taps, start, x, add, channels, o, to.stride, last, own);
      else if (rows > 1)
        Window<kRows, 1>(i, taps, start, x, add, channels, o, to.stride, last, own);
      else if (vectors > 1)
        Window<1, kWide>(i, taps, start, x, add, channels, o, to.stride, last, own);
      else
        Window<1, 1>(i, taps, start, x, add, channels, o, to.stride, last, own);
      c += vectors * kLanes;
    }
    i += rows;
  }
}

void Band(index_t m, index_t n, Rows weights, index_t taps, index_t first, index_t left, const Sequence& x, bool add, Into to) {
  EachWindow(m, n, taps, first, left, x, add, to,
             [&](index_t row, index_t tap, index_t) HWY_ATTR { return hn::Set(F(), weights.data[row * weights.stride + tap]); });
}

void Depthwise(index_t m, index_t n, Rows weights, index_t taps, index_t first, index_t left, const Sequence& x, bool add,
               Into to) {
  EachWindow(m, n, taps, first, left, x, add, to, [&](index_t, index_t tap, index_t channel) HWY_ATTR {
    return load_first(weights.data + tap * weights.stride + channel, n - channel);
  });
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(Band);
HWY_EXPORT(Depthwise);

void band(index_t m, index_t n, Rows weights, index_t taps, index_t first, index_t left, const Sequence& x, bool add, Into to) {
  HWY_DYNAMIC_DISPATCH(Band)(m, n, weights, taps, first, left, x, add, to);
}
void depthwise(index_t m, index_t n, Rows weights, index_t taps, index_t first, index_t left, const Sequence& x, bool add,
               Into to) {
  HWY_DYNAMIC_DISPATCH(Depthwise)(m, n, weights, taps, first, left, x, add, to);
}

}  // namespace attn::kernels
#endif
