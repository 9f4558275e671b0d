#include "attn/kernels/linear/token_sweep.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/linear/token_sweep.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE::token {
namespace hn = hwy::HWY_NAMESPACE;

#define ATTN_EACH(i, n) _Pragma("GCC unroll 16") for (int i = 0; i < (n); ++i)

// Vectors side by side, and query rows of a pass: their sums, the values and two broadcasts fit 32 (16) registers.
#if HWY_TARGET <= HWY_AVX3
inline constexpr int width = 4;
#else
inline constexpr int width = 2;
#endif
inline constexpr int most_rows = 4;

enum class Update { none, add, fade };

// The end of a row of columns may be no whole vector: its lanes past the first `last` do not count.
struct Lanes {
  index_t last;
  HWY_INLINE V load(const float* from) const { return last == kLanes ? hn::LoadU(F(), from) : load_first(from, last); }
  HWY_INLINE void store(V x, float* to) const { last == kLanes ? hn::StoreU(x, F(), to) : store_first(x, to, last); }
};

// N rows of sums from feature f on, W vectors wide, and what they add to the answers. All are read before the first is written: one by
// one, writing and multiplying take turns (Zen 4, 64 x 64: 218 ns, so 193, and 192 for an update in place that answers nothing).
template <Update U, int N, int R, int W>
HWY_INLINE void features(const TokenSweep& t, const float* query, index_t f, float* row, Lanes lanes, const V (&value)[W],
                         V (&sum)[std::max(R, 1)][W]) {
  const F d;
  V s[N][W];
  ATTN_EACH(n, N) {
    ATTN_EACH(w, W) s[n][w] = lanes.load(row + n * t.value_dim + w * kLanes);
    if constexpr (U == Update::fade) ATTN_EACH(w, W) s[n][w] = hn::Mul(s[n][w], hn::Set(d, t.keep));
    if constexpr (U != Update::none) {
      const V key = hn::Set(d, t.key[f + n]);
      ATTN_EACH(w, W) s[n][w] = hn::MulAdd(key, value[w], s[n][w]);
    }
  }
  ATTN_EACH(n, N) ATTN_EACH(r, R) {
    const V q = hn::Set(d, query[r * t.queries.stride + f + n]);
    ATTN_EACH(w, W) sum[r][w] = hn::MulAdd(q, s[n][w], sum[r][w]);
  }
  if constexpr (U != Update::none) ATTN_EACH(n, N) ATTN_EACH(w, W) lanes.store(s[n][w], row + n * t.value_dim + w * kLanes);
}

// Columns at .. at + W vectors for R query rows from `first` on.
template <Update U, int R, int W>
HWY_NOINLINE void columns(const TokenSweep& t, index_t first, index_t at, Lanes lanes) {
  constexpr int together = R <= 2 ? 4 : 2;  // they and the sums fit the registers
  constexpr index_t summed_at_once = 256;  // features; thousands in one chain would lose digits
  V value[W], sum[std::max(R, 1)][W], whole[std::max(R, 1)][W];
  if constexpr (U != Update::none) ATTN_EACH(w, W) value[w] = lanes.load(t.value + at + w * kLanes);
  ATTN_EACH(r, R) ATTN_EACH(w, W) whole[r][w] = hn::Zero(F());
  const float* const query = t.queries.data + first * t.queries.stride;
  float* row = t.sums + at;
  for (index_t f = 0; f < t.features;) {
    const index_t end = std::min(f + summed_at_once, t.features);
    ATTN_EACH(r, R) ATTN_EACH(w, W) sum[r][w] = hn::Zero(F());
    for (; f + together <= end; f += together, row += together * t.value_dim)
      features<U, together, R, W>(t, query, f, row, lanes, value, sum);
    for (; f < end; ++f, row += t.value_dim) features<U, 1, R, W>(t, query, f, row, lanes, value, sum);
    ATTN_EACH(r, R) ATTN_EACH(w, W) whole[r][w] = hn::Add(whole[r][w], sum[r][w]);
  }
  ATTN_EACH(r, R) {
    float* const to = t.out.data + (first + r) * t.out.stride + at;
    ATTN_EACH(w, W) {
      if (t.denominators != nullptr) whole[r][w] = hn::Mul(whole[r][w], hn::Set(F(), t.norm[first + r]));
      lanes.store(whole[r][w], to + w * kLanes);
    }
  }
}

template <Update U, int R>
void rows(const TokenSweep& t, index_t first) {
  index_t at = 0;
  for (; at + width * kLanes <= t.value_dim; at += width * kLanes) columns<U, R, width>(t, first, at, {kLanes});
  for (; at < t.value_dim; at += kLanes) columns<U, R, 1>(t, first, at, {std::min(kLanes, t.value_dim - at)});
}

template <Update U>
void some_rows(const TokenSweep& t, index_t first, index_t count) {
  switch (count) {
    case 0: return rows<U, 0>(t, first);
    case 1: return rows<U, 1>(t, first);
    case 2: return rows<U, 2>(t, first);
    case 3: return rows<U, 3>(t, first);
    default: return rows<U, most_rows>(t, first);
  }
}

// f(vector's first feature, its lanes).
template <class Fn>
HWY_INLINE void for_vectors(index_t count, Fn f) {
  index_t at = 0;
  for (; at + kLanes <= count; at += kLanes) f(at, Lanes{kLanes});
  if (at < count) f(at, Lanes{count - at});
}

// The totals of the features, and what queries are divided by.
void totals(const TokenSweep& t) {
  const F d;
  if (t.key != nullptr) {
    const V keep = hn::Set(d, t.keep);
    for_vectors(t.features, [&](index_t f, Lanes lanes) HWY_ATTR {
      lanes.store(hn::MulAdd(lanes.load(t.total + f), keep, lanes.load(t.key + f)), t.total + f);
    });
  }
  if (t.denominators == nullptr || t.rows == 0) return;
  for (index_t r = 0; r < t.rows; ++r) {
    const float* const query = t.queries.data + r * t.queries.stride;
    V sum = hn::Zero(d);
    for_vectors(t.features,
                [&](index_t f, Lanes lanes) HWY_ATTR { sum = hn::MulAdd(lanes.load(query + f), lanes.load(t.total + f), sum); });
    t.norm[r] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
  t.denominators(t.rows, t.norm);
}

void sweep(const TokenSweep& t) {
  totals(t);
  index_t done = std::min<index_t>(most_rows, t.rows);
  if (t.key == nullptr) {
    if (done > 0) some_rows<Update::none>(t, 0, done);
  } else if (t.keep == 1) {
    some_rows<Update::add>(t, 0, done);
  } else {
    some_rows<Update::fade>(t, 0, done);
  }
  for (; done < t.rows; done += most_rows) some_rows<Update::none>(t, done, std::min<index_t>(most_rows, t.rows - done));
}

#undef ATTN_EACH

}  // namespace attn::kernels::HWY_NAMESPACE::token
namespace attn::kernels::HWY_NAMESPACE {
void SweepToken(const TokenSweep& t) { token::sweep(t); }
}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(SweepToken);

void sweep_token(const TokenSweep& token) { HWY_DYNAMIC_DISPATCH(SweepToken)(token); }

}  // namespace attn::kernels
#endif
