#include "attn/kernels/choose/selection.hpp"

#include "attn/kernels/choose/grouping.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/choose/selection.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void Argmax(index_t n, index_t columns, const float* y, int32_t* at) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  for (index_t i = 0; i < n; i += static_cast<index_t>(hn::Lanes(d))) {
    auto best = hn::LoadU(d, y + i);
    auto number = hn::Zero(di);
    for (index_t c = 1; c < 2 * columns; ++c) {
      auto value = hn::LoadU(d, y + (c < columns ? c : c - columns) * n + i);
      if (c >= columns) value = hn::Neg(value);
      const auto more = hn::Gt(value, best);
      best = hn::IfThenElse(more, value, best);
      number = hn::IfThenElse(hn::RebindMask(di, more), hn::Set(di, static_cast<int32_t>(c)), number);
    }
    hn::StoreU(number, di, at + i);
  }
}

void AppendAll(index_t n, const float* score, int32_t first, float* scores, int32_t* rows) {
  const F d;
  const hn::RebindToSigned<F> di;
  const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  for (index_t j = 0; j < n; j += kLanes) {
    const V value = load_first(score + j, n - j);
    hn::StoreU(hn::IfThenElse(hn::Gt(value, lowest), value, lowest), d, scores + j);
    hn::StoreU(hn::Iota(di, static_cast<int32_t>(first + j)), di, rows + j);
  }
}

// Few scores are above, and where is hard to foresee: one loop over the bits of 64 costs one wrong guess, a branch for each vector
// one for nearly every score.
index_t AppendAbove(index_t n, const float* score, float least, int32_t first, float* scores, int32_t* rows, index_t size) {
  const F d;
  const auto limit = hn::Set(d, least);
  constexpr index_t word = 64;
  index_t j = 0;
  for (; j + word <= n; j += word) {
    uint64_t above = 0;
    for (index_t w = 0; w < word; w += kLanes) above |= mask_bits(d, hn::Gt(hn::LoadU(d, score + j + w), limit)) << w;
    for (; above != 0; above &= above - 1) {
      const auto at = static_cast<int32_t>(j) + static_cast<int32_t>(hwy::Num0BitsBelowLS1Bit_Nonzero64(above));
      scores[size] = score[at];
      rows[size++] = first + at;
    }
  }
  for (; j < n; ++j) {
    if (!(score[j] > least)) continue;
    scores[size] = score[j];
    rows[size++] = static_cast<int32_t>(first + j);
  }
  return size;
}

// Scores as whole numbers in their order: bits, but for the sign of the others.
HWY_INLINE hn::Vec<hn::RebindToSigned<F>> Ordered(V score) {
  const hn::RebindToSigned<F> di;
  const auto bits = hn::BitCast(di, hn::Add(score, hn::Zero(F())));  // -0 equals 0
  return hn::Xor(bits, hn::And(hn::ShiftRight<31>(bits), hn::Set(di, 0x7fffffff)));
}

// The limit is found by halving the range of the numbers, each time counting in lanes: a dozen passes as a rule, since any number
// that has `take` above it will do. nth_element takes ten times as long.
Kept KeepLargest(index_t n, index_t take, index_t most, float* scores, int32_t* rows, int32_t* number) {
  const F d;
  const hn::RebindToSigned<F> di;
  const auto lowest = std::numeric_limits<int32_t>::min();
  auto top = hn::Set(di, lowest), bottom = hn::Set(di, std::numeric_limits<int32_t>::max());
  for (index_t i = 0; i < n; i += kLanes) {
    auto x = Ordered(hn::LoadU(d, scores + i));
    if (n - i < kLanes) {
      const auto counts = hn::FirstN(di, static_cast<size_t>(n - i));
      bottom = hn::IfThenElse(counts, hn::Min(bottom, x), bottom);
      x = hn::IfThenElse(counts, x, hn::Set(di, lowest));
    } else {
      bottom = hn::Min(bottom, x);
    }
    top = hn::Max(top, x);
    hn::StoreU(x, di, number + i);
  }
  for (index_t i = (n + kLanes - 1) / kLanes; i % 4 != 0; ++i) hn::StoreU(hn::Set(di, lowest), di, number + i * kLanes);
  const auto above = [&](int32_t limit) HWY_ATTR {  // how many
    auto a = hn::Zero(di), b = a, c = a, e = a;
    const auto least = hn::Set(di, limit);
    const auto one = [&](index_t i) HWY_ATTR { return hn::VecFromMask(di, hn::Gt(hn::LoadU(di, number + i), least)); };
    for (index_t i = 0; i < n; i += 4 * kLanes) {
      a = hn::Sub(a, one(i)), b = hn::Sub(b, one(i + kLanes));
      c = hn::Sub(c, one(i + 2 * kLanes)), e = hn::Sub(e, one(i + 3 * kLanes));
    }
    return index_t{hn::GetLane(hn::SumOfLanes(di, hn::Add(hn::Add(a, b), hn::Add(c, e))))};
  };
  // At least `take` are `reached` or more, fewer are `missed` or more.
  int64_t reached = hn::GetLane(hn::MinOfLanes(di, bottom)), missed = int64_t{hn::GetLane(hn::MaxOfLanes(di, top))} + 1;
  index_t kept = n;
  while (missed - reached > 1 && kept > most) {
    const int64_t middle = reached + (missed - reached) / 2;
    const index_t count = above(static_cast<int32_t>(middle - 1));
    if (count >= take)
      reached = middle, kept = count;
    else
      missed = middle;
  }
  const auto limit = static_cast<int32_t>(reached);
  const index_t spare = kept > most ? kept - most : 0;  // of those that equal the limit
  V least = hn::Set(d, std::numeric_limits<float>::infinity());
  index_t size = 0;
  if (spare == 0) {
    for (index_t i = 0; i < n; i += kLanes) {
      auto stays = hn::Not(hn::Lt(hn::LoadU(di, number + i), hn::Set(di, limit)));
      if (n - i < kLanes) stays = hn::And(stays, hn::FirstN(di, static_cast<size_t>(n - i)));
      const auto score = hn::LoadU(d, scores + i);
      least = hn::IfThenElse(hn::RebindMask(d, stays), hn::Min(least, score), least);
      hn::CompressStore(hn::LoadU(di, rows + i), stays, di, rows + size);
      size += static_cast<index_t>(hn::CompressStore(score, hn::RebindMask(d, stays), d, scores + size));
    }
    return {size, hn::GetLane(hn::MinOfLanes(d, least))};
  }
  index_t equal = 0;
  for (index_t i = 0; i < n; ++i) equal += number[i] == limit;
  equal -= spare;  // that stay
  float lowest_score = std::numeric_limits<float>::infinity();
  for (index_t i = 0; i < n; ++i) {
    if (number[i] < limit || (number[i] == limit && equal-- <= 0)) continue;
    lowest_score = std::min(lowest_score, scores[i]);
    scores[size] = scores[i];
    rows[size++] = rows[i];
  }
  return {size, lowest_score};
}

void MeansOfGroups(const int32_t* order, index_t count, const int32_t* begin, index_t groups, index_t dim, Rows x, Into to) {
  const F d;
  constexpr index_t ahead = 8;  // rows, since they are read at random
  for (index_t g = 0; g < groups; ++g) {
    const V share = hn::Set(d, 1.0f / static_cast<float>(std::max(begin[g + 1] - begin[g], 1)));
    for (index_t e = 0; e < dim; e += 4 * kLanes) {
      V sum[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
      const index_t left = dim - e;
      for (index_t i = begin[g]; i < begin[g + 1]; ++i) {
        const float* soon = x.data + order[std::min(i + ahead, count - 1)] * x.stride + e;
        const float* row = x.data + order[i] * x.stride + e;
        if (left >= 4 * kLanes) {
          for (int w = 0; w < 4; ++w) {
            __builtin_prefetch(soon + w * kLanes);
            sum[w] = hn::Add(sum[w], hn::LoadU(d, row + w * kLanes));
          }
        } else {
          for (int w = 0; w * kLanes < left; ++w) sum[w] = hn::Add(sum[w], load_first(row + w * kLanes, left - w * kLanes));
        }
      }
      for (int w = 0; w < 4 && e + w * kLanes < dim; ++w)
        store_first(hn::Mul(sum[w], share), to.data + g * to.stride + e + w * kLanes, dim - e - w * kLanes);
    }
  }
}

// Rows of at most W vectors stay in registers.
template <int W>
HWY_INLINE void LayerNormRows(index_t m, index_t n, Rows from, Into to, const int32_t* list) {
  const F d;
  const auto columns = static_cast<float>(n);
  const auto vectors = static_cast<int>((n + kLanes - 1) / kLanes);
  const auto in_last = hn::FirstN(d, static_cast<size_t>(n - (vectors - 1) * kLanes));
  constexpr index_t ahead = 16;  // rows that are fetched, listed or not
  for (index_t i = 0; i < m; ++i) {
    const float* x = from.data + (list != nullptr ? list[i] : i) * from.stride;
    const float* soon = from.data + (list != nullptr ? list[std::min(i + ahead, m - 1)] : i + ahead) * from.stride;
    float* y = to.data + i * to.stride;
    V row[W];
    V sum = hn::Zero(d), squares = hn::Zero(d);
    for (int w = 0; w < W; ++w) {
      if (w == vectors) break;
      __builtin_prefetch(soon + w * kLanes);
      row[w] = load_first(x + w * kLanes, n - w * kLanes);
      sum = hn::Add(sum, row[w]);
    }
    const V mean = hn::Mul(hn::SumOfLanes(d, sum), hn::Set(d, 1 / columns));
    for (int w = 0; w < W; ++w) {
      if (w == vectors) break;
      row[w] = hn::Sub(row[w], mean);
      if (w == vectors - 1) row[w] = hn::IfThenElseZero(in_last, row[w]);
      squares = hn::MulAdd(row[w], row[w], squares);
    }
    const V factor = hn::Set(d, 1 / std::sqrt(hn::GetLane(hn::SumOfLanes(d, squares)) / columns + 1e-6f));
    for (int w = 0; w < W; ++w) {
      if (w == vectors) break;
      store_first(hn::Mul(row[w], factor), y + w * kLanes, n - w * kLanes);
    }
  }
}

void LayerNorm(index_t m, index_t n, Rows from, Into to, const int32_t* list) {
  if (n == 4 * kLanes) return LayerNormRows<4>(m, 4 * kLanes, from, to, list);
  LayerNormRows<256 / kLanes>(m, n, from, to, list);
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(Argmax);
HWY_EXPORT(AppendAll);
HWY_EXPORT(AppendAbove);
HWY_EXPORT(KeepLargest);
HWY_EXPORT(MeansOfGroups);
HWY_EXPORT(LayerNorm);

void argmax_of_both_signs(index_t n, index_t columns, const float* y, std::int32_t* at) {
  HWY_DYNAMIC_DISPATCH(Argmax)(n, columns, y, at);
}

void append_all(index_t n, const float* score, std::int32_t first, float* scores, std::int32_t* rows) {
  HWY_DYNAMIC_DISPATCH(AppendAll)(n, score, first, scores, rows);
}

index_t append_above(index_t n, const float* score, float least, std::int32_t first, float* scores, std::int32_t* rows,
                     index_t size) {
  return HWY_DYNAMIC_DISPATCH(AppendAbove)(n, score, least, first, scores, rows, size);
}

void take_largest(const float* score, index_t count, index_t take, float* best, std::int32_t* to) {
  if (take == 0) return;
  index_t size = 0;
  for (index_t u = 0; u < count; ++u) {
    const float x = score[u];
    if (size == take ? !(x > best[take - 1]) : x != x) continue;
    index_t at = size < take ? size++ : take - 1;
    for (; at > 0 && x > best[at - 1]; --at) best[at] = best[at - 1], to[at] = to[at - 1];
    best[at] = x;
    to[at] = static_cast<std::int32_t>(u);
  }
  std::sort(to, to + size);
  std::fill(to + size, to + take, -1);
}

Kept keep_largest(index_t n, index_t take, index_t most, float* scores, std::int32_t* rows, std::int32_t* scratch) {
  return HWY_DYNAMIC_DISPATCH(KeepLargest)(n, take, most, scores, rows, scratch);
}

void means_of_groups(std::span<const std::int32_t> order, std::span<const std::int32_t> begin, index_t dim, Rows x, Into to) {
  HWY_DYNAMIC_DISPATCH(MeansOfGroups)
  (order.data(), static_cast<index_t>(order.size()), begin.data(), static_cast<index_t>(begin.size()) - 1, dim, x, to);
}

void layer_norm(index_t m, index_t n, Rows from, Into to, const std::int32_t* list) {
  HWY_DYNAMIC_DISPATCH(LayerNorm)(m, n, from, to, list);
}

}  // namespace attn::kernels
#endif
