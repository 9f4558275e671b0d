#include "attn/kernels/dense/thresholds.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/dense/thresholds.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

// What exceeds a threshold: how much of it there is, and sums of the excess and its square. Sums of the numbers themselves would cancel
// where many are alike.
struct Excess {
  float count, sum, square;
};

// Numbers are taken relative to the largest first: a threshold near it has all its digits.
struct Relative {
  V top, factor;
  HWY_INLINE V exceed(V x, V threshold) const {
    const V relative = hn::Sub(x, top);
    return hn::Max(hn::MulSub(relative, factor, threshold), hn::Zero(F()));
  }
};

HWY_INLINE Excess excess(const float* x, index_t n, const Relative& to, float limit) {
  const F d;
  const V threshold = hn::Set(d, limit), one = hn::Set(d, 1), zero = hn::Zero(d);
  V count[2] = {zero, zero}, sum[2] = {zero, zero}, square[2] = {zero, zero};
  const auto take = [&](V u, int w) HWY_ATTR {
    count[w] = hn::Add(count[w], hn::IfThenElseZero(hn::Gt(u, zero), one));
    sum[w] = hn::Add(sum[w], u);
    square[w] = hn::MulAdd(u, u, square[w]);
  };
  index_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    for (int w = 0; w < 2; ++w) take(to.exceed(hn::LoadU(d, x + j + w * kLanes), threshold), w);
  }
  for (; j < n; j += kLanes) {
    const V u = to.exceed(load_first(x + j, n - j), threshold);
    take(n - j < kLanes ? hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n - j)), u) : u, 0);
  }
  const auto total = [&](const V(&v)[2]) HWY_ATTR { return hn::GetLane(hn::SumOfLanes(d, hn::Add(v[0], v[1]))); };
  return {total(count), total(sum), total(square)};
}

HWY_INLINE float largest(const float* x, index_t n) {
  const F d;
  V top = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (index_t j = 0; j < n; j += kLanes) {
    const V own = load_first(x + j, n - j);
    top = hn::Max(top, n - j < kLanes ? hn::IfThenElse(hn::FirstN(d, static_cast<size_t>(n - j)), own, top) : own);
  }
  return hn::GetLane(hn::MaxOfLanes(d, top));
}

// Newton's iteration from below: the threshold rises until those that exceed it no longer change, and once more for the last digits. It begins
// one below the largest, where the sum is 1 at least.
template <bool squared>
HWY_INLINE void Threshold(index_t m, index_t n, Rows from, float scale, Into to) {
  const F d;
  constexpr int most_steps = 64;  // a dozen do for 10^5 numbers
  const V factor = hn::Set(d, squared ? scale / 2 : scale);
  for (index_t i = 0; i < m; ++i) {
    const float* const x = from.data + i * from.stride;
    float* const y = to.data + i * to.stride;
    const Relative relative{hn::Set(d, largest(x, n)), factor};
    float threshold = -1, before = -1;  // relative to the largest
    for (int step = 0; step < most_steps; ++step) {
      const Excess e = excess(x, n, relative, threshold);
      const float mean = e.sum / e.count;
      threshold += squared ? mean - std::sqrt(std::max(0.0f, (1 - (e.square - mean * e.sum)) / e.count)) : mean - 1 / e.count;
      if (!(e.count < before) && step > 0) break;
      before = e.count;
    }
    const V limit = hn::Set(d, threshold);
    for (index_t j = 0; j < n; j += kLanes) {
      const V u = relative.exceed(load_first(x + j, n - j), limit);
      store_first(squared ? hn::Mul(u, u) : u, y + j, n - j);
    }
  }
}

void Sparsemax(index_t m, index_t n, Rows from, float scale, Into to) { Threshold<false>(m, n, from, scale, to); }
void Entmax15(index_t m, index_t n, Rows from, float scale, Into to) { Threshold<true>(m, n, from, scale, to); }

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(Sparsemax);
HWY_EXPORT(Entmax15);

void sparsemax(index_t m, index_t n, Rows from, float scale, Into to) { HWY_DYNAMIC_DISPATCH(Sparsemax)(m, n, from, scale, to); }
void entmax15(index_t m, index_t n, Rows from, float scale, Into to) { HWY_DYNAMIC_DISPATCH(Entmax15)(m, n, from, scale, to); }

}  // namespace attn::kernels
#endif
