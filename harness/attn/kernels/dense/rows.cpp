#include "attn/kernels/dense/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/dense/rows.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <limits>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

inline constexpr float kLog2e = 1.44269504f;
inline constexpr float kLowest = -std::numeric_limits<float>::infinity();

// f(vector at column j of row i, i, j, lanes that count) -> vector.
template <class Fn>
HWY_INLINE void MapRows(index_t m, index_t n, Rows from, Into to, Fn f) {
  const F d;
  for (index_t i = 0; i < m; ++i) {
    const float* x = from.data + i * from.stride;
    float* y = to.data + i * to.stride;
    index_t j = 0;
    for (; j + kLanes <= n; j += kLanes) hn::StoreU(f(hn::LoadU(d, x + j), i, j, kLanes), d, y + j);
    if (j < n) store_first(f(load_first(x + j, n - j), i, j, n - j), y + j, n - j);
  }
}

HWY_INLINE V ExpLanes(V x) { return exp2_lanes(hn::Mul(x, hn::Set(F(), kLog2e))); }

void Copy(index_t m, index_t n, Rows from, Into to) {
  MapRows(m, n, from, to, [](V x, index_t, index_t, index_t) HWY_ATTR { return x; });
}

void Transpose(index_t m, index_t n, Rows from, Into to) {
  const F d;
  index_t i = 0;
#if HWY_TARGET <= HWY_AVX2
  // Lanes of a vector stored one column each would cost a scatter; 4 x 4 blocks by unpacking, two levels, cost 2 shuffles
  // a vector. The loads gather the blocks of a column of `to`.
  const hn::RepartitionToWide<hn::RebindToUnsigned<F>> d64;
  for (; i + kLanes <= m; i += kLanes) {
    index_t j = 0;
    for (; j + 4 <= n; j += 4) {
      V r[4];
      for (int q = 0; q < 4; ++q) {
        const float* x = from.data + (i + q) * from.stride + j;
        const hn::Half<F> half;
        const index_t four = 4 * from.stride;
        if constexpr (kLanes == 16) {
          const hn::Half<decltype(half)> quarter;
          const auto low = hn::Combine(half, hn::LoadU(quarter, x + four), hn::LoadU(quarter, x));
          const auto high = hn::Combine(half, hn::LoadU(quarter, x + 3 * four), hn::LoadU(quarter, x + 2 * four));
          r[q] = hn::Combine(d, high, low);
        } else {
          r[q] = hn::Combine(d, hn::LoadU(half, x + four), hn::LoadU(half, x));
        }
      }
      const auto a = hn::BitCast(d64, hn::InterleaveLower(d, r[0], r[1]));
      const auto b = hn::BitCast(d64, hn::InterleaveUpper(d, r[0], r[1]));
      const auto c = hn::BitCast(d64, hn::InterleaveLower(d, r[2], r[3]));
      const auto e = hn::BitCast(d64, hn::InterleaveUpper(d, r[2], r[3]));
      float* y = to.data + j * to.stride + i;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, a, c)), d, y);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, a, c)), d, y + to.stride);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, b, e)), d, y + 2 * to.stride);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, b, e)), d, y + 3 * to.stride);
    }
    for (; j < n; ++j) {
      for (index_t q = i; q < i + kLanes; ++q) to.data[j * to.stride + q] = from.data[q * from.stride + j];
    }
  }
#else
  (void)d;
#endif
  for (; i < m; ++i) {
    for (index_t j = 0; j < n; ++j) to.data[j * to.stride + i] = from.data[i * from.stride + j];
  }
}

void Add(index_t m, index_t n, Rows from, Into to, float factor) {
  const V f = hn::Set(F(), factor);
  MapRows(m, n, from, to, [&](V x, index_t i, index_t j, index_t count) HWY_ATTR {
    return hn::MulAdd(x, f, load_first(to.data + i * to.stride + j, count));
  });
}

void ScaleRows(index_t m, index_t n, Rows from, const float* factor, Into to) {
  MapRows(m, n, from, to, [&](V x, index_t i, index_t, index_t) HWY_ATTR { return hn::Mul(x, hn::Set(F(), factor[i])); });
}

void EluPlusOne(index_t m, index_t n, Rows from, Into to) {
  MapRows(m, n, from, to, [](V x, index_t, index_t, index_t) HWY_ATTR {
    const V one = hn::Set(F(), 1.0f);
    return hn::IfThenElse(hn::Gt(x, hn::Zero(F())), hn::Add(x, one), ExpLanes(x));
  });
}

void EluPlusOneGradient(index_t m, index_t n, Rows features, Rows gradient, Into to) {
  MapRows(m, n, features, to, [&](V x, index_t i, index_t j, index_t count) HWY_ATTR {
    return hn::Mul(hn::Min(x, hn::Set(F(), 1.0f)), load_first(gradient.data + i * gradient.stride + j, count));
  });
}

void ReluGradient(index_t m, index_t n, Rows features, Into gradient) {
  MapRows(m, n, features, gradient, [&](V x, index_t i, index_t j, index_t count) HWY_ATTR {
    return hn::IfThenElseZero(hn::Gt(x, hn::Zero(F())), load_first(gradient.data + i * gradient.stride + j, count));
  });
}

void Relu(index_t m, index_t n, Rows from, const float* factor, Into to) {
  MapRows(m, n, from, to,
          [&](V x, index_t i, index_t, index_t) HWY_ATTR { return hn::Mul(hn::Max(x, hn::Zero(F())), hn::Set(F(), factor[i])); });
}

void ReluPlus(index_t m, index_t n, Rows from, float plus, Into to) {
  const V p = hn::Set(F(), plus);
  MapRows(m, n, from, to, [&](V x, index_t, index_t, index_t) HWY_ATTR { return hn::Add(hn::Max(x, hn::Zero(F())), p); });
}

void ExpMinus(index_t m, index_t n, Rows from, const float* shift, Into to) {
  MapRows(m, n, from, to,
          [&](V x, index_t, index_t j, index_t count) HWY_ATTR { return ExpLanes(hn::Sub(x, load_first(shift + j, count))); });
}

void ScaleColumns(index_t m, index_t n, Rows from, const float* factor, Into to) {
  MapRows(m, n, from, to,
          [&](V x, index_t, index_t j, index_t count) HWY_ATTR { return hn::Mul(x, load_first(factor + j, count)); });
}

void ExpFeatures(index_t m, index_t n, Rows from, const float* shift, float factor, float plus, Into to) {
  const V f = hn::Set(F(), factor), rest = hn::Set(F(), factor * plus);
  MapRows(m, n, from, to, [&](V x, index_t i, index_t, index_t) HWY_ATTR {
    return hn::MulAdd(ExpLanes(hn::Sub(x, hn::Set(F(), shift[i]))), f, rest);
  });
}

// sin and cos on [-pi/4, pi/4] by their Taylor series (next terms: 3e-9 and 4e-8), and the quadrant from x * 2/pi.
void SinCos(index_t m, index_t n, Rows from, float factor, Into sines, Into cosines) {
  const F d;
  const hn::RebindToSigned<F> di;
  MapRows(m, n, from, sines, [&](V x, index_t i, index_t j, index_t count) HWY_ATTR {
    const auto quadrant = hn::NearestInt(hn::Mul(x, hn::Set(d, 0.636619772f)));
    const V q = hn::ConvertTo(d, quadrant);
    // pi/2 in three parts: the products of the first two are exact up to |x| = 1000, fused or not.
    V r = hn::NegMulAdd(q, hn::Set(d, 1.5703125f), x);
    r = hn::NegMulAdd(q, hn::Set(d, 4.83751297e-4f), r);
    r = hn::NegMulAdd(q, hn::Set(d, 7.54978995e-8f), r);
    const V s = hn::Mul(r, r);
    V sine = hn::MulAdd(s, hn::Set(d, 2.75573192e-6f), hn::Set(d, -1.98412698e-4f));
    sine = hn::MulAdd(sine, s, hn::Set(d, 8.33333333e-3f));
    sine = hn::MulAdd(sine, s, hn::Set(d, -1.66666667e-1f));
    sine = hn::MulAdd(hn::Mul(sine, s), r, r);
    V cosine = hn::MulAdd(s, hn::Set(d, 2.48015873e-5f), hn::Set(d, -1.38888889e-3f));
    cosine = hn::MulAdd(cosine, s, hn::Set(d, 4.16666667e-2f));
    cosine = hn::MulAdd(cosine, s, hn::Set(d, -0.5f));
    cosine = hn::MulAdd(cosine, s, hn::Set(d, 1.0f));
    // Odd quadrants swap the two; bit 1 of the quadrant, moved to the sign, negates the sine, that of quadrant + 1 the cosine.
    const auto odd = hn::RebindMask(d, hn::TestBit(quadrant, hn::Set(di, 1)));
    const auto sign = hn::Set(di, 2);
    const V sine_sign = hn::BitCast(d, hn::ShiftLeft<30>(hn::And(quadrant, sign)));
    const V cosine_sign = hn::BitCast(d, hn::ShiftLeft<30>(hn::And(hn::Add(quadrant, hn::Set(di, 1)), sign)));
    const V f = hn::Set(d, factor);
    const V c = hn::Mul(hn::Xor(hn::IfThenElse(odd, sine, cosine), cosine_sign), f);
    store_first(c, cosines.data + i * cosines.stride + j, count);
    return hn::Mul(hn::Xor(hn::IfThenElse(odd, cosine, sine), sine_sign), f);
  });
}

// Sum over the columns of row i of term(vector, column, lanes that count); lanes that do not count must give zero.
template <class Fn>
HWY_INLINE float SumRow(index_t n, const float* x, Fn term) {
  const F d;
  V sum = hn::Zero(d);
  index_t j = 0;
  for (; j + kLanes <= n; j += kLanes) sum = hn::Add(sum, term(hn::LoadU(d, x + j), j, kLanes));
  if (j < n) sum = hn::Add(sum, term(load_first(x + j, n - j), j, n - j));
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

HWY_INLINE float MaxRow(index_t n, const float* x) {
  const F d;
  V top = hn::Set(d, kLowest);
  index_t j = 0;
  for (; j + kLanes <= n; j += kLanes) top = hn::Max(hn::LoadU(d, x + j), top);
  if (j < n) {
    const auto counts = hn::FirstN(d, static_cast<size_t>(n - j));
    top = hn::Max(hn::IfThenElse(counts, load_first(x + j, n - j), top), top);
  }
  return hn::GetLane(hn::MaxOfLanes(d, top));
}

void RowMax(index_t m, index_t n, Rows from, float* to) {
  for (index_t i = 0; i < m; ++i) to[i] = MaxRow(n, from.data + i * from.stride);
}

void RowSquares(index_t m, index_t n, Rows from, float* to) {
  for (index_t i = 0; i < m; ++i) {
    to[i] = SumRow(n, from.data + i * from.stride, [](V x, index_t, index_t) HWY_ATTR { return hn::Mul(x, x); });
  }
}

// Sums of the lanes of four vectors, added in pairs: a third of the shuffles of four sums alone.
HWY_INLINE void StoreSums(V a, V b, V c, V e, float* to) {
  const F d;
#if HWY_TARGET <= HWY_AVX2
  const hn::RepartitionToWide<hn::RebindToUnsigned<F>> d64;
  const auto ab = hn::BitCast(d64, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  const auto ce = hn::BitCast(d64, hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
  const V blocks = hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, ab, ce)), hn::BitCast(d, hn::InterleaveUpper(d64, ab, ce)));
  const hn::Half<F> half;
  const auto two = hn::Add(hn::LowerHalf(half, blocks), hn::UpperHalf(half, blocks));
  if constexpr (kLanes == 16) {
    const hn::Half<decltype(half)> quarter;
    hn::StoreU(hn::Add(hn::LowerHalf(quarter, two), hn::UpperHalf(quarter, two)), quarter, to);
  } else {
    hn::StoreU(two, half, to);
  }
#else
  const V all[] = {a, b, c, e};
  for (int i = 0; i < 4; ++i) to[i] = hn::GetLane(hn::SumOfLanes(d, all[i]));
#endif
}

void RowDots(index_t m, index_t n, Rows from, const float* weights, float* to) {
  const F d;
  index_t i = 0;
  const auto dot = [&](const float* x) HWY_ATTR {
    V product = hn::Zero(d);
    for (index_t j = 0; j < n; j += kLanes) product = hn::MulAdd(load_first(x + j, n - j), load_first(weights + j, n - j), product);
    return product;
  };
  for (; i + 4 <= m; i += 4) {
    const float* x = from.data + i * from.stride;
    StoreSums(dot(x), dot(x + from.stride), dot(x + 2 * from.stride), dot(x + 3 * from.stride), to + i);
  }
  for (; i < m; ++i) {
    to[i] = SumRow(n, from.data + i * from.stride,
                   [&](V x, index_t j, index_t count) HWY_ATTR { return hn::Mul(x, load_first(weights + j, count)); });
  }
}

void SoftmaxGradient(index_t m, index_t n, Rows weights, Into gradient) {
  for (index_t i = 0; i < m; ++i) {
    const float* w = weights.data + i * weights.stride;
    const Into row{gradient.data + i * gradient.stride, n};
    float mean = 0;
    RowDots(1, n, row, w, &mean);
    MapRows(1, n, row, row, [&](V x, index_t, index_t j, index_t count) HWY_ATTR {
      return hn::Mul(hn::Sub(x, hn::Set(F(), mean)), load_first(w + j, count));
    });
  }
}

void AddRowSums(index_t m, index_t n, Rows from, float* to) {
  for (index_t i = 0; i < m; ++i) {
    to[i] += SumRow(n, from.data + i * from.stride, [](V x, index_t, index_t) HWY_ATTR { return x; });
  }
}

// Columns in groups of four vectors, which stay in registers over all rows. They start from `start` and meet what is there last: rows
// that come in several calls are summed in two levels.
template <class Fn>
HWY_INLINE void FoldColumns(index_t m, index_t n, Rows from, float* to, float start, Fn f) {
  const F d;
  const V first = hn::Set(d, start);
  index_t j = 0;
  for (; j + 4 * kLanes <= n; j += 4 * kLanes) {
    V a = first, b = first, c = first, e = first;
    const float* x = from.data + j;
    for (index_t i = 0; i < m; ++i, x += from.stride) {
      a = f(hn::LoadU(d, x), a), b = f(hn::LoadU(d, x + kLanes), b);
      c = f(hn::LoadU(d, x + 2 * kLanes), c), e = f(hn::LoadU(d, x + 3 * kLanes), e);
    }
    float *const y = to + j, *const z = y + 2 * kLanes;
    hn::StoreU(f(a, hn::LoadU(d, y)), d, y), hn::StoreU(f(b, hn::LoadU(d, y + kLanes)), d, y + kLanes);
    hn::StoreU(f(c, hn::LoadU(d, z)), d, z), hn::StoreU(f(e, hn::LoadU(d, z + kLanes)), d, z + kLanes);
  }
  for (; j < n; j += kLanes) {
    V a = first;
    for (index_t i = 0; i < m; ++i) a = f(load_first(from.data + i * from.stride + j, n - j), a);
    store_first(f(a, load_first(to + j, n - j)), to + j, n - j);
  }
}

void AddColumnSums(index_t m, index_t n, Rows from, float* to) {
  FoldColumns(m, n, from, to, 0, [](V x, V sum) HWY_ATTR { return hn::Add(sum, x); });
}

void RaiseColumnMax(index_t m, index_t n, Rows from, float* to) {
  FoldColumns(m, n, from, to, kLowest, [](V x, V top) HWY_ATTR { return hn::Max(x, top); });
}

// W vectors of columns, of which the last has `last` lanes.
template <int W, bool kAdd>
HWY_INLINE void RunColumns(index_t m, Rows from, const float* start, Into to, float* total, index_t last) {
  V before[W], sum[W];
  for (int w = 0; w < W; ++w) {
    before[w] = load_first(start + w * kLanes, w == W - 1 ? last : kLanes);
    sum[w] = hn::Zero(F());
  }
  for (index_t i = 0; i < m; ++i) {
    for (int w = 0; w < W; ++w) {
      const index_t count = w == W - 1 ? last : kLanes;
      float* y = to.data + i * to.stride + w * kLanes;
      sum[w] = hn::Add(sum[w], load_first(from.data + i * from.stride + w * kLanes, count));
      const V all = hn::Add(before[w], sum[w]);
      store_first(kAdd ? hn::Add(all, load_first(y, count)) : all, y, count);
    }
  }
  for (int w = 0; w < W; ++w) store_first(sum[w], total + w * kLanes, w == W - 1 ? last : kLanes);
}

template <bool kAdd>
HWY_INLINE void RunRows(index_t m, index_t n, Rows from, const float* start, Into to, float* total) {
  const auto at = [](auto x, index_t j) HWY_ATTR { return decltype(x){x.data + j, x.stride}; };
  index_t j = 0;
  for (; j + 4 * kLanes <= n; j += 4 * kLanes) RunColumns<4, kAdd>(m, at(from, j), start + j, at(to, j), total + j, kLanes);
  for (; j < n; j += kLanes) RunColumns<1, kAdd>(m, at(from, j), start + j, at(to, j), total + j, n - j);
}

void RunningSums(index_t m, index_t n, Rows from, const float* start, bool add, Into to, float* total) {
  return add ? RunRows<true>(m, n, from, start, to, total) : RunRows<false>(m, n, from, start, to, total);
}

// Knuth's sum of two.
void AddExactly(index_t n, const float* from, float* sum, float* rest) {
  for (index_t j = 0; j < n; j += kLanes) {
    const V a = load_first(sum + j, n - j), b = hn::Add(load_first(from + j, n - j), load_first(rest + j, n - j));
    const V s = hn::Add(a, b), of_b = hn::Sub(s, a);
    store_first(s, sum + j, n - j);
    store_first(hn::Add(hn::Sub(a, hn::Sub(s, of_b)), hn::Sub(b, of_b)), rest + j, n - j);
  }
}

// Rows of W vectors, the last with `last` lanes, stay in registers (31 columns, stride 32: 11.7 ns a row, 15.0 through memory; Zen 4).
template <int W>
void SoftmaxOfFew(index_t m, index_t last, Rows from, V factor, Into to) {
  const F d;
  const auto counts = hn::FirstN(d, static_cast<size_t>(last));
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (index_t i = 0; i < m; ++i) {
    const float* x = from.data + i * from.stride;
    float* y = to.data + i * to.stride;
    V e[W];
    for (int w = 0; w + 1 < W; ++w) e[w] = hn::LoadU(d, x + w * kLanes);
    e[W - 1] = hn::IfThenElse(counts, load_first(x + (W - 1) * kLanes, last), lowest);
    V top = e[0];
    for (int w = 1; w < W; ++w) top = hn::Max(top, e[w]);
    top = hn::MaxOfLanes(d, top);
    for (int w = 0; w < W; ++w) e[w] = exp2_lanes(hn::Mul(hn::Sub(e[w], top), factor));
    e[W - 1] = hn::IfThenElseZero(counts, e[W - 1]);
    V sum = e[0];
    for (int w = 1; w < W; ++w) sum = hn::Add(sum, e[w]);
    const V inverse = hn::Set(d, 1.0f / hn::GetLane(hn::SumOfLanes(d, sum)));
    for (int w = 0; w + 1 < W; ++w) hn::StoreU(hn::Mul(e[w], inverse), d, y + w * kLanes);
    store_first(hn::Mul(e[W - 1], inverse), y + (W - 1) * kLanes, last);
  }
}

void Softmax(index_t m, index_t n, Rows from, float scale, Into to) {
  const F d;
  const V factor = hn::Set(d, scale * kLog2e);
  const index_t vectors = (n + kLanes - 1) / kLanes, last = n - (vectors - 1) * kLanes;
  switch (vectors) {
    case 1: return SoftmaxOfFew<1>(m, last, from, factor, to);
    case 2: return SoftmaxOfFew<2>(m, last, from, factor, to);
    case 3: return SoftmaxOfFew<3>(m, last, from, factor, to);
    case 4: return SoftmaxOfFew<4>(m, last, from, factor, to);
    default: break;
  }
  for (index_t i = 0; i < m; ++i) {
    const float* x = from.data + i * from.stride;
    float* y = to.data + i * to.stride;
    const V top = hn::Set(d, MaxRow(n, x));
    V sum = hn::Zero(d);
    index_t j = 0;
    for (; j < n; j += kLanes) {
      V e = exp2_lanes(hn::Mul(hn::Sub(load_first(x + j, n - j), top), factor));
      if (n - j < kLanes) e = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n - j)), e);
      sum = hn::Add(sum, e);
      store_first(e, y + j, n - j);
    }
    const V inverse = hn::Set(d, 1.0f / hn::GetLane(hn::SumOfLanes(d, sum)));
    for (j = 0; j < n; j += kLanes) store_first(hn::Mul(load_first(y + j, n - j), inverse), y + j, n - j);
  }
}

using Doubles = hn::ScalableTag<double>;
HWY_INLINE hn::Vec<Doubles> LoadDoubles(const double* from) { return hn::LoadU(Doubles(), from); }
HWY_INLINE hn::Vec<Doubles> LoadDoubles(const float* from) {
  const hn::Rebind<float, Doubles> floats;
  return hn::PromoteTo(Doubles(), hn::LoadU(floats, from));
}

template <index_t kRows, class B>
HWY_INLINE void AddProductOfRows(index_t n, index_t k, const double* a, const B* b, index_t b_row, double* to) {
  const Doubles d;
  const auto lanes = static_cast<index_t>(hn::Lanes(d));
  index_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    hn::Vec<Doubles> sum[kRows];
    for (index_t i = 0; i < kRows; ++i) sum[i] = hn::LoadU(d, to + i * n + j);
    for (index_t e = 0; e < k; ++e) {
      const auto x = LoadDoubles(b + e * b_row + j);
      for (index_t i = 0; i < kRows; ++i) sum[i] = hn::MulAdd(hn::Set(d, a[i * k + e]), x, sum[i]);
    }
    for (index_t i = 0; i < kRows; ++i) hn::StoreU(sum[i], d, to + i * n + j);
  }
  for (; j < n; ++j) {
    for (index_t i = 0; i < kRows; ++i) {
      for (index_t e = 0; e < k; ++e) to[i * n + j] += a[i * k + e] * static_cast<double>(b[e * b_row + j]);
    }
  }
}

template <class B>
HWY_INLINE void AddProductOf(index_t m, index_t n, index_t k, const double* a, const B* b, index_t b_row, double* to) {
  index_t i = 0;
  for (; i + 8 <= m; i += 8) AddProductOfRows<8>(n, k, a + i * k, b, b_row, to + i * n);
  for (; i < m; ++i) AddProductOfRows<1>(n, k, a + i * k, b, b_row, to + i * n);
}

void AddProduct(index_t m, index_t n, index_t k, const double* a, Rows b, double* to) {
  AddProductOf(m, n, k, a, b.data, b.stride, to);
}

void AddProductOfDoubles(index_t m, index_t n, index_t k, const double* a, const double* b, double* to) {
  AddProductOf(m, n, k, a, b, n, to);
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

#define ATTN_ROWS(name, Kernel, parameters, ...) \
  HWY_EXPORT(Kernel);                            \
  void name parameters { HWY_DYNAMIC_DISPATCH(Kernel)(__VA_ARGS__); }

ATTN_ROWS(copy, Copy, (index_t m, index_t n, Rows from, Into to), m, n, from, to)
ATTN_ROWS(transpose, Transpose, (index_t m, index_t n, Rows from, Into to), m, n, from, to)
ATTN_ROWS(add, Add, (index_t m, index_t n, Rows from, Into to, float factor), m, n, from, to, factor)
ATTN_ROWS(scale_rows, ScaleRows, (index_t m, index_t n, Rows from, const float* factor, Into to), m, n, from, factor, to)
ATTN_ROWS(elu_plus_one, EluPlusOne, (index_t m, index_t n, Rows from, Into to), m, n, from, to)
ATTN_ROWS(elu_plus_one_gradient, EluPlusOneGradient, (index_t m, index_t n, Rows features, Rows gradient, Into to), m, n, features,
          gradient, to)
ATTN_ROWS(relu_gradient, ReluGradient, (index_t m, index_t n, Rows features, Into gradient), m, n, features, gradient)
ATTN_ROWS(relu, Relu, (index_t m, index_t n, Rows from, const float* factor, Into to), m, n, from, factor, to)
ATTN_ROWS(relu_plus, ReluPlus, (index_t m, index_t n, Rows from, float plus, Into to), m, n, from, plus, to)
ATTN_ROWS(exp_minus, ExpMinus, (index_t m, index_t n, Rows from, const float* shift, Into to), m, n, from, shift, to)
ATTN_ROWS(scale_columns, ScaleColumns, (index_t m, index_t n, Rows from, const float* factor, Into to), m, n, from, factor, to)
ATTN_ROWS(exp_features, ExpFeatures, (index_t m, index_t n, Rows from, const float* shift, float factor, float plus, Into to), m, n,
          from, shift, factor, plus, to)
ATTN_ROWS(sin_cos, SinCos, (index_t m, index_t n, Rows from, float factor, Into sines, Into cosines), m, n, from, factor, sines,
          cosines)
ATTN_ROWS(softmax, Softmax, (index_t m, index_t n, Rows from, float scale, Into to), m, n, from, scale, to)
ATTN_ROWS(softmax_gradient, SoftmaxGradient, (index_t m, index_t n, Rows weights, Into gradient), m, n, weights, gradient)
ATTN_ROWS(row_max, RowMax, (index_t m, index_t n, Rows from, float* to), m, n, from, to)
ATTN_ROWS(row_squares, RowSquares, (index_t m, index_t n, Rows from, float* to), m, n, from, to)
ATTN_ROWS(row_dots, RowDots, (index_t m, index_t n, Rows from, const float* weights, float* to), m, n, from, weights, to)
ATTN_ROWS(add_row_sums, AddRowSums, (index_t m, index_t n, Rows from, float* to), m, n, from, to)
ATTN_ROWS(add_column_sums, AddColumnSums, (index_t m, index_t n, Rows from, float* to), m, n, from, to)
ATTN_ROWS(raise_column_max, RaiseColumnMax, (index_t m, index_t n, Rows from, float* to), m, n, from, to)
ATTN_ROWS(running_sums, RunningSums, (index_t m, index_t n, Rows from, const float* start, bool add, Into to, float* total), m, n,
          from, start, add, to, total)
ATTN_ROWS(add_exactly, AddExactly, (index_t n, const float* from, float* sum, float* rest), n, from, sum, rest)
ATTN_ROWS(add_product, AddProduct, (index_t m, index_t n, index_t k, const double* a, Rows b, double* to), m, n, k, a, b, to)
ATTN_ROWS(add_product, AddProductOfDoubles, (index_t m, index_t n, index_t k, const double* a, const double* b, double* to), m, n,
          k, a, b, to)

}  // namespace attn::kernels
#endif
