#include "attn/kernels/selection.hpp"

#include "attn/kernels/grouping.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/selection.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <limits>

#include "attn/kernels/lanes-inl.hpp"

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

index_t AppendAbove(index_t n, const float* score, float least, int32_t first, float* scores, int32_t* rows, index_t size) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const auto lanes = static_cast<index_t>(hn::Lanes(d));
  const auto limit = hn::Set(d, least);
  index_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    const auto value = hn::LoadU(d, score + j);
    const auto above = hn::Gt(value, limit);
    if (hn::AllFalse(d, above)) continue;
    hn::CompressStore(hn::Iota(di, static_cast<int32_t>(first + j)), hn::RebindMask(di, above), di, rows + size);
    size += static_cast<index_t>(hn::CompressStore(value, above, d, scores + size));
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

// The `take`-th largest is found by halving the range of the numbers, each time counting in lanes: a dozen passes as a rule, since
// any number that has `take` above it will do. nth_element takes ten times as long.
float KeepLargest(index_t n, index_t take, float* scores, int32_t* rows, int32_t* number) {
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
  const auto above = [&](int32_t limit) HWY_ATTR {  // how many
    auto count = hn::Zero(di);
    const auto least = hn::Set(di, limit);
    for (index_t i = 0; i < n; i += kLanes) count = hn::Sub(count, hn::VecFromMask(di, hn::Gt(hn::LoadU(di, number + i), least)));
    return index_t{hn::GetLane(hn::SumOfLanes(di, count))};
  };
  // At least `take` are `reached` or more, fewer are `missed` or more.
  int64_t reached = hn::GetLane(hn::MinOfLanes(di, bottom)), missed = int64_t{hn::GetLane(hn::MaxOfLanes(di, top))} + 1;
  index_t kept = n;
  while (missed - reached > 1 && kept != take) {
    const int64_t middle = reached + (missed - reached) / 2;
    const index_t count = above(static_cast<int32_t>(middle - 1));
    if (count >= take) reached = middle, kept = count;
    else missed = middle;
  }
  const auto limit = static_cast<int32_t>(reached);
  index_t spare = kept - take;  // of those that equal the limit, if more than one does
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
    return hn::GetLane(hn::MinOfLanes(d, least));
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
  return lowest_score;
}

void MeanOfRows(const int32_t* list, index_t count, index_t dim, Rows x, float* to) {
  const F d;
  const V share = hn::Set(d, 1.0f / static_cast<float>(std::max<index_t>(count, 1)));
  for (index_t e = 0; e < dim; e += 4 * kLanes) {
    V sum[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    for (index_t i = 0; i < count; ++i) {
      const float* row = x.data + list[i] * x.stride;
      for (int w = 0; w < 4; ++w) {
        const index_t at = e + w * kLanes;
        if (at < dim) sum[w] = hn::Add(sum[w], load_first(row + at, dim - at));
      }
    }
    for (int w = 0; w < 4; ++w) {
      const index_t at = e + w * kLanes;
      if (at < dim) store_first(hn::Mul(sum[w], share), to + at, dim - at);
    }
  }
}

void NormaliseRows(index_t m, index_t n, Rows from, Into to) {
  const F d;
  const auto columns = static_cast<float>(n);
  for (index_t i = 0; i < m; ++i) {
    const float* x = from.data + i * from.stride;
    float* y = to.data + i * to.stride;
    V sum = hn::Zero(d), squares = hn::Zero(d);
    for (index_t j = 0; j < n; j += kLanes) sum = hn::Add(sum, load_first(x + j, n - j));
    const V mean = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, sum)) / columns);
    for (index_t j = 0; j < n; j += kLanes) {
      V centred = hn::Sub(load_first(x + j, n - j), mean);
      if (n - j < kLanes) centred = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n - j)), centred);
      squares = hn::MulAdd(centred, centred, squares);
    }
    const V variance = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, squares)) / columns + 1e-6f);
    const V factor = hn::Div(hn::Set(d, 1.0f), hn::Sqrt(variance));
    for (index_t j = 0; j < n; j += kLanes) store_first(hn::Mul(hn::Sub(load_first(x + j, n - j), mean), factor), y + j, n - j);
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(Argmax);
HWY_EXPORT(AppendAbove);
HWY_EXPORT(KeepLargest);
HWY_EXPORT(MeanOfRows);
HWY_EXPORT(NormaliseRows);

void argmax_of_both_signs(index_t n, index_t columns, const float* y, std::int32_t* at) {
  HWY_DYNAMIC_DISPATCH(Argmax)(n, columns, y, at);
}

index_t append_above(index_t n, const float* score, float least, std::int32_t first, float* scores, std::int32_t* rows,
                     index_t size) {
  return HWY_DYNAMIC_DISPATCH(AppendAbove)(n, score, least, first, scores, rows, size);
}

float keep_largest(index_t n, index_t take, float* scores, std::int32_t* rows, std::int32_t* scratch) {
  return HWY_DYNAMIC_DISPATCH(KeepLargest)(n, take, scores, rows, scratch);
}

void mean_of_rows(std::span<const std::int32_t> list, index_t dim, Rows x, float* to) {
  HWY_DYNAMIC_DISPATCH(MeanOfRows)(list.data(), static_cast<index_t>(list.size()), dim, x, to);
}

void normalise_rows(index_t m, index_t n, Rows from, Into to) { HWY_DYNAMIC_DISPATCH(NormaliseRows)(m, n, from, to); }

}  // namespace attn::kernels
#endif
