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

// Columns at .. at + W vectors, of which the last has `last` lanes, for R query rows from `first` on.
template <Update U, int R, int W>
HWY_NOINLINE void columns(const TokenSweep& t, index_t first, index_t at, index_t last) {
  constexpr int chains = R == 1 ? 2 : 1;  // a single row's sums wait for each other where two multiply-adds start a cycle
  const F d;
  const bool whole = W > 1 || last == kLanes;
  const auto load = [&](const float* from) HWY_ATTR { return whole ? hn::LoadU(d, from) : load_first(from, last); };
  V value[W], sum[chains][std::max(R, 1)][W];
  if constexpr (U != Update::none) ATTN_EACH(w, W) value[w] = load(t.value + at + w * kLanes);
  ATTN_EACH(c, chains) ATTN_EACH(r, R) ATTN_EACH(w, W) sum[c][r][w] = hn::Zero(d);
  const float* const query = t.queries.data + first * t.queries.stride;
  float* row = t.sums + at;
  const auto feature = [&](index_t f, V(&to)[std::max(R, 1)][W]) HWY_ATTR {
    V s[W];
    ATTN_EACH(w, W) s[w] = load(row + w * kLanes);
    if constexpr (U == Update::fade) ATTN_EACH(w, W) s[w] = hn::Mul(s[w], hn::Set(d, t.keep));
    if constexpr (U != Update::none) {
      const V key = hn::Set(d, t.key[f]);
      ATTN_EACH(w, W) {
        s[w] = hn::MulAdd(key, value[w], s[w]);
        if (whole) {
          hn::StoreU(s[w], d, row + w * kLanes);
        } else {
          store_first(s[w], row + w * kLanes, last);
        }
      }
    }
    ATTN_EACH(r, R) {
      const V q = hn::Set(d, query[r * t.queries.stride + f]);
      ATTN_EACH(w, W) to[r][w] = hn::MulAdd(q, s[w], to[r][w]);
    }
    row += t.value_dim;
  };
  index_t f = 0;
  for (; f + chains <= t.features; f += chains) ATTN_EACH(c, chains) feature(f + c, sum[c]);
  for (; f < t.features; ++f) feature(f, sum[0]);
  ATTN_EACH(r, R) {
    float* const to = t.out.data + (first + r) * t.out.stride + at;
    ATTN_EACH(w, W) {
      V total = sum[0][r][w];
      if constexpr (chains == 2) total = hn::Add(total, sum[1][r][w]);
      if (t.denominators != nullptr) total = hn::Mul(total, hn::Set(d, t.norm[first + r]));
      if (whole) {
        hn::StoreU(total, d, to + w * kLanes);
      } else {
        store_first(total, to + w * kLanes, last);
      }
    }
  }
}

template <Update U, int R>
void rows(const TokenSweep& t, index_t first) {
  index_t at = 0;
  for (; at + width * kLanes <= t.value_dim; at += width * kLanes) columns<U, R, width>(t, first, at, kLanes);
  for (; at < t.value_dim; at += kLanes) columns<U, R, 1>(t, first, at, std::min(kLanes, t.value_dim - at));
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

// The totals of the features, and what queries are divided by.
void totals(const TokenSweep& t) {
  const F d;
  if (t.key != nullptr) {
    const V keep = hn::Set(d, t.keep);
    for (index_t f = 0; f < t.features; f += kLanes) {
      const index_t count = std::min(kLanes, t.features - f);
      store_first(hn::MulAdd(load_first(t.total + f, count), keep, load_first(t.key + f, count)), t.total + f, count);
    }
  }
  if (t.denominators == nullptr || t.rows == 0) return;
  for (index_t r = 0; r < t.rows; ++r) {
    const float* const query = t.queries.data + r * t.queries.stride;
    V sum = hn::Zero(d);
    for (index_t f = 0; f < t.features; f += kLanes) {
      const index_t count = std::min(kLanes, t.features - f);
      sum = hn::MulAdd(load_first(query + f, count), load_first(t.total + f, count), sum);
    }
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
