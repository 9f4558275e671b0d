// The kernel of few rows; included once per instruction set.
#if defined(ATTN_KERNELS_FEW_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_FEW_ROWS_INL
#undef ATTN_KERNELS_FEW_ROWS_INL
#else
#define ATTN_KERNELS_FEW_ROWS_INL
#endif
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "attn/kernels/dense/transpose-inl.hpp"
#include "attn/kernels/machine/lanes-inl.hpp"
#include "attn/kernels/machine/storage-inl.hpp"
#include "attn/kernels/machine/tanh-inl.hpp"
#include "attn/kernels/rows/fetch-inl.hpp"
#include "attn/kernels/rows/few_rows.hpp"
#include "attn/kernels/rows/few_rows_score-inl.hpp"
#include "attn/kernels/rows/lane_sums-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE::few_rows {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float lowest = std::numeric_limits<float>::lowest();
inline constexpr float log2_e = 1.44269504f;

// How far a score may exceed the reference of its row: weights below 3000, and their sums far from overflow.
inline constexpr float room = 8.0f;

// ---- Weights. Key j of row r of a group stands at place<R>(r, j).

template <int R>
constexpr index_t place(index_t r, index_t j) {
  constexpr index_t keys = tile_keys<R>;
  return j / keys * sums + r * keys + j % keys;
}

// Moves the references of rows that have scores far above.
template <int R>
HWY_NOINLINE void move_references(index_t n, const float* s, float* o, index_t o_stride, index_t value_dim, float* sum,
                                  float* top) {
  const F d;
  for (index_t r = 0; r < R; ++r) {
    constexpr index_t keys = tile_keys<R>;
    float* own = top + r * keys;
    float highest = *own;
    for (index_t j = 0; j < n; ++j) highest = std::max(highest, s[place<R>(r, j)]);
    if (!(highest > *own + room)) continue;
    const float factor = std::exp2((*own - highest) * log2_e);
    for (index_t g = 0; g < keys; ++g) own[g] = highest, sum[r * keys + g] *= factor;
    for (index_t c = 0; c < value_dim; c += kLanes) {
      hn::Store(hn::Mul(hn::Load(d, o + r * o_stride + c), hn::Set(d, factor)), d, o + r * o_stride + c);
    }
  }
}

// Scores to weights, and their sums. `n` whole tiles' keys.
template <int R>
HWY_INLINE void weigh(index_t n, float* s, float* o, index_t o_stride, index_t value_dim, float* sum, float* top) {
  const F d;
  for (int part = 0; part < sums; part += static_cast<int>(kLanes)) {
    const V limit = hn::Add(hn::Load(d, top + part), hn::Set(d, room));
    auto above = hn::Gt(hn::Load(d, s + part), limit);
    for (index_t at = sums; at < n * R; at += sums) above = hn::Or(above, hn::Gt(hn::Load(d, s + at + part), limit));
    if (HWY_LIKELY(hn::AllFalse(d, above))) continue;
    move_references<R>(n, s, o, o_stride, value_dim, sum, top);
    break;
  }
  for (int part = 0; part < sums; part += static_cast<int>(kLanes)) {
    const V reference = hn::Load(d, top + part);
    V total = hn::Load(d, sum + part);
    for (index_t at = part; at < n * R; at += sums) {
      // Scores are in natural units, so that those near the reference differ from it exactly however large both are.
      const V p = exp2_lanes(hn::Mul(hn::Sub(hn::Load(d, s + at), reference), hn::Set(d, log2_e)));
      hn::Store(p, d, s + at);
      total = hn::Add(total, p);
    }
    hn::Store(total, d, sum + part);
  }
}

// ---- Values

// o[r][at ..] += sum_j p[r][j] v[j][at ..], C vectors of columns; the last `tail` columns where that is not zero.
template <class S, int R, int C, int kRate>
HWY_INLINE void add_columns(const std::byte* const* v, index_t n, const float* p, float* o, index_t o_stride, index_t at,
                            index_t tail, Fetch& fetch) {
  const F d;
  constexpr int chains = R * C < 8 ? 2 : 1;  // 8 multiplications under way hide their latency
  constexpr index_t keys = tile_keys<R>;
  V acc[chains][R][C];
  ATTN_UNROLL for (int r = 0; r < R; ++r) {
    ATTN_UNROLL for (int c = 0; c < C; ++c) {
      acc[0][r][c] = hn::Load(d, o + r * o_stride + at + c * kLanes);
      if constexpr (chains == 2) acc[1][r][c] = hn::Zero(d);
    }
  }
  const auto add = [&](V(&to)[R][C], index_t j, const float* weight) HWY_ATTR {
    fetch.template bring<kRate>();
    bring_near<S, C * kLanes>(v[j + KeyBlock::ahead], at);
    V x[C];
    if (C == 1 && tail > 0) {
      x[0] = S::load_first(v[j], at, tail);
    } else {
      load_vectors<S, C, (R > 1)>(v[j], at, x);
    }
    ATTN_UNROLL for (int r = 0; r < R; ++r) {
      const V w = held(hn::Set(d, weight[r * keys]));
      ATTN_UNROLL for (int c = 0; c < C; ++c) to[r][c] = hn::MulAdd(x[c], w, to[r][c]);
    }
  };
  for (index_t first = 0; first < n; first += keys, p += sums) {
    const index_t end = std::min(keys, n - first);
    index_t g = 0;
    if constexpr (chains == 2) {
      for (; g + 2 <= end; g += 2) {
        add(acc[0], first + g, p + g);
        add(acc[1], first + g + 1, p + g + 1);
      }
    }
    for (; g < end; ++g) add(acc[0], first + g, p + g);
  }
  ATTN_UNROLL for (int r = 0; r < R; ++r) {
    ATTN_UNROLL for (int c = 0; c < C; ++c) {
      if constexpr (chains == 2) acc[0][r][c] = hn::Add(acc[0][r][c], acc[1][r][c]);
      hn::Store(acc[0][r][c], d, o + r * o_stride + at + c * kLanes);
    }
  }
}

// Vectors of columns that are summed at a time.
template <int R>
inline constexpr int most_columns = kLanes == 8 ? 8 / R
                                    : R == 1    ? 8
                                                : 16 / R;

// Passes over the values of a block for R rows.
template <int R>
constexpr index_t passes(index_t value_dim) {
  index_t vectors = value_dim / kLanes, count = value_dim % kLanes > 0 ? 1 : 0;
  for (index_t width = most_columns<R>; width > 0; width /= 2) count += vectors / width, vectors %= width;
  return count;
}

template <class S, int R, int C, int kRate>
HWY_INLINE void add_values_by(const std::byte* const* v, index_t n, const float* p, float* o, index_t o_stride, index_t value_dim,
                              index_t at, Fetch& fetch) {
  for (; at + C * kLanes <= value_dim; at += C * kLanes) add_columns<S, R, C, kRate>(v, n, p, o, o_stride, at, 0, fetch);
  if constexpr (C > 1)
    add_values_by<S, R, C / 2, kRate>(v, n, p, o, o_stride, value_dim, at, fetch);
  else if (at < value_dim)
    add_columns<S, R, 1, kRate>(v, n, p, o, o_stride, at, value_dim - at, fetch);
}

// As add_columns over all columns, but a row's values of keys that it does not see are not even multiplied by zero.
template <class S, int R>
HWY_NOINLINE void add_seen_values(const std::byte* const* v, index_t n, const std::uint64_t* seen, index_t rows, const float* p,
                                  float* o, index_t o_stride, index_t value_dim) {
  const F d;
  for (index_t r = 0; r < std::min<index_t>(R, rows); ++r) {
    for (index_t at = 0; at < value_dim; at += kLanes) {
      V acc = hn::Load(d, o + r * o_stride + at);
      for (index_t j = 0; j < n; ++j) {
        if ((seen[r] >> j & 1) == 0) continue;
        acc = hn::MulAdd(S::load_first(v[j], at, value_dim - at), hn::Set(d, p[place<R>(r, j)]), acc);
      }
      hn::Store(acc, d, o + r * o_stride + at);
    }
  }
}

// ---- A block

// Scores of pairs that do not count become -inf, whose weight is zero.
template <int R>
HWY_NOINLINE void blank(index_t n, const std::uint64_t* seen, index_t rows, float* s) {
  const index_t end = (n + tile_keys<R> - 1) / tile_keys<R> * tile_keys<R>;
  for (index_t r = 0; r < R; ++r) {
    for (index_t j = seen != nullptr && r < rows ? 0 : n; j < end; ++j) {
      if (j >= n || (seen[r] >> j & 1) == 0) s[place<R>(r, j)] = -infinity;
    }
  }
}

// Scores s to softcap tanh(s / softcap). `n` whole tiles' keys.
template <int R>
HWY_NOINLINE void cap(index_t n, float softcap, float* s) {
  const F d;
  const V whole = hn::Set(d, softcap), inverse = hn::Set(d, 1.0f / softcap);
  for (index_t at = 0; at < n * R; at += kLanes)
    hn::Store(hn::Mul(whole, tanh_lanes(hn::Mul(hn::Load(d, s + at), inverse))), d, s + at);
}

template <int R>
HWY_NOINLINE void add_bias(index_t n, const float* bias, float* s) {
  constexpr index_t keys = tile_keys<R>;
  for (index_t first = 0; first < n; first += keys, s += sums) {
    ATTN_UNROLL for (index_t r = 0; r < R; ++r) {
      ATTN_UNROLL for (index_t g = 0; g < keys; ++g) s[r * keys + g] += bias[r * few_rows_block + first + g];
    }
  }
}

// Calls go with the lines of a step as a constant: kMost, or a half, or a quarter of it .. or 0. A single lane does not outrun the memory: for
// it there is 0 alone, which a third of this file's compile time is saved by.
template <int kMost, class G>
HWY_INLINE void at_rate(int rate, const G& go) {
  if constexpr (kMost > 0 && kLanes > 1) {
    return rate == kMost ? go(std::integral_constant<int, kMost>{}) : at_rate<kMost / 2>(rate, go);
  } else {
    return go(std::integral_constant<int, 0>{});
  }
}

template <class S, bool kLatent>
struct Block {
  const GroupShape& shape;
  const float* queries;
  const KeyBlock& now;
  const KeyBlock& next;
  const KeyBlock& later;
  const std::uint64_t* seen;
  const float* bias;
  FewRowsState state;
  float* weights;

  float* weights_of(index_t first) const { return weights + first * few_rows_block; }
  float* o_of(index_t first) const { return state.o + first * state.o_stride; }
  const std::uint64_t* seen_by(index_t first) const { return seen != nullptr ? seen + first : nullptr; }

  template <int R, int kRate>
  HWY_INLINE void scores(index_t first, Fetch& values) const {
    const index_t q_stride = query_columns(shape);
    const float* q = queries + first * q_stride;
    float* s = weights_of(first);
    Fetch soon = values;  // in registers
    for (index_t j = 0; j < now.count; j += tile_keys<R>, s += sums) {
      const Piece k{now.k.data() + j, q, shape.head_dim};
      if constexpr (kLatent) {
        score<S, R, kRate>({k, {now.v.data() + j, q + padded_columns(shape.head_dim), shape.value_dim}}, q_stride, soon, s);
      } else {
        score<S, R, kRate>({k}, q_stride, soon, s);
      }
    }
    values = soon;
    const index_t n = (now.count + tile_keys<R> - 1) / tile_keys<R> * tile_keys<R>;
    if (shape.softcap > 0) cap<R>(n, static_cast<float>(shape.softcap), weights_of(first));
    if (bias != nullptr) add_bias<R>(n, bias + first * few_rows_block, weights_of(first));
    if (HWY_UNLIKELY(seen != nullptr || now.count % tile_keys<R> != 0)) {
      blank<R>(now.count, seen_by(first), shape.rows - first, weights_of(first));
    }
  }

  template <int R>
  HWY_INLINE void soften(index_t first, index_t group) const {
    const index_t n = (now.count + tile_keys<R> - 1) / tile_keys<R> * tile_keys<R>;
    weigh<R>(n, weights_of(first), o_of(first), state.o_stride, kLatent ? state.o_stride : shape.value_dim, state.sum + group * 16,
             state.top + group * 16);
  }

  template <int R, int kRate>
  HWY_INLINE void values(index_t first, Fetch& keys) const {
    if constexpr (kLatent) values_of<R, kRate>(now.k.data(), shape.latent, first, o_of(first), keys);
    values_of<R, kRate>(now.v.data(), shape.value_dim, first, o_of(first) + padded_columns(shape.latent), keys);
  }
  template <int R, int kRate>
  HWY_INLINE void values_of(const std::byte* const* rows, index_t width, index_t first, float* o, Fetch& keys) const {
    if (HWY_UNLIKELY(seen != nullptr)) {
      return add_seen_values<S, R>(rows, now.count, seen_by(first), shape.rows - first, weights_of(first), o, state.o_stride,
                                   width);
    }
    Fetch soon = keys;
    add_values_by<S, R, most_columns<R>, kRate>(rows, now.count, weights_of(first), o, state.o_stride, width, 0, soon);
    keys = soon;
  }

  // All groups go through a phase before the next, so that keys and values are each read from memory once.
  template <class G>
  HWY_INLINE void for_groups(const G& go) const {
    index_t group = 0;
    for (index_t first = 0; first < shape.rows; ++group) {
      const index_t count = group_rows(shape.rows - first);
      go(first, group, count);
      first += count;
    }
  }

  // While keys are read their values are fetched, and while these are read the keys of the next block. Of latents, which are both, the next
  // block's k and v in turn.
  void attend() const {
    const index_t k_bytes = S::bytes(shape.head_dim), v_bytes = S::bytes(shape.value_dim);
    const KeyBlock &soon = kLatent ? next : now, &after = kLatent ? later : next;
    Fetch values_soon(soon.v.data(), soon.count, after.v.data(), after.count, v_bytes);
    Fetch keys_soon(next.k.data(), next.count, later.k.data(), later.count, k_bytes);
    index_t steps = 0, visits = 0;  // of score tiles along head_dim; of keys by passes over the values
    for_groups([&](index_t, index_t, index_t count) HWY_ATTR {
      const index_t tile = sums / count, step = std::min<index_t>(tile, keys_at_once);
      const index_t lanes = kLanes * (count == 4 ? vectors_at_once<4> : vectors_at_once<1>);
      const auto steps_of = [&](index_t width) { return width / lanes + (width % lanes + kLanes - 1) / kLanes; };
      const auto passes_of = [&](index_t width) {
        return count == 4 ? passes<4>(width) : count == 2 ? passes<2>(width) : passes<1>(width);
      };
      steps +=
          (now.count + tile - 1) / tile * (tile / step) * (steps_of(shape.head_dim) + (kLatent ? steps_of(shape.value_dim) : 0));
      visits += now.count * (passes_of(shape.value_dim) + (kLatent ? passes_of(shape.latent) : 0));
    });
    values_soon.spread(steps);
    keys_soon.spread(visits);
    at_rate<4>(values_soon.rate(4), [&](auto rate) HWY_ATTR { all_scores<rate()>(values_soon); });
    for_groups([&](index_t first, index_t group, index_t count) HWY_ATTR {
      count == 4 ? soften<4>(first, group) : count == 2 ? soften<2>(first, group) : soften<1>(first, group);
    });
    at_rate<8>(keys_soon.rate(8), [&](auto rate) HWY_ATTR { all_values<rate()>(keys_soon); });
  }

  template <int kRate>
  HWY_NOINLINE void all_scores(Fetch& soon) const {
    for_groups([&](index_t first, index_t, index_t count) HWY_ATTR {
      count == 4 ? scores<4, kRate>(first, soon) : count == 2 ? scores<2, kRate>(first, soon) : scores<1, kRate>(first, soon);
    });
  }

  template <int kRate>
  HWY_NOINLINE void all_values(Fetch& soon) const {
    for_groups([&](index_t first, index_t, index_t count) HWY_ATTR {
      count == 4 ? values<4, kRate>(first, soon) : count == 2 ? values<2, kRate>(first, soon) : values<1, kRate>(first, soon);
    });
  }
};

template <class S, bool kLatent = false>
void attend(const GroupShape& shape, const float* queries, const KeyBlocks& keys, const std::uint64_t* seen, const float* bias,
            float* state, float* weights) {
  const FewRowsState to(shape, state);
  for (index_t r = 0; r < shape.rows; ++r) {
    if (seen == nullptr || seen[r] != 0) *to.met |= std::uint64_t{1} << r;
  }
  Block<S, kLatent>{shape, queries, keys.now, keys.next, keys.later, seen, bias, to, weights}.attend();
}

// ---- The ends

inline void load(const GroupShape& shape, const std::byte* const* rows, index_t rows_given, double scale, float* queries) {
  const index_t stride = query_columns(shape), of_k = padded_columns(shape.head_dim);
  std::fill_n(queries, padded_rows(shape.rows) * stride, 0.0f);
  for (index_t r = 0; r < rows_given; ++r) {
    const float* const row = stored::F32::row(rows[r]);
    for (index_t c = 0; c < shape.query_dim(); ++c)
      queries[r * stride + (c < shape.head_dim ? c : of_k + c - shape.head_dim)] = row[c] * static_cast<float>(scale);
  }
}

inline void merge(const GroupShape& shape, float* into, const float* from) {
  const F d;
  const FewRowsState a(shape, into), b(shape, const_cast<float*>(from));
  for (index_t first = 0, group = 0, count; first < shape.rows; first += count, ++group) {
    count = group_rows(shape.rows - first);
    const index_t keys = sums / count;
    for (index_t r = 0; r < count; ++r) {
      const index_t lane = group * 16 + r * keys;
      const float top = std::max(a.top[lane], b.top[lane]);
      const auto factor_to_top = [&](float own) { return own == top ? 1.0f : std::exp2((own - top) * log2_e); };
      const float f = factor_to_top(a.top[lane]), g = factor_to_top(b.top[lane]);
      for (index_t i = lane; i < lane + keys; ++i) a.sum[i] = a.sum[i] * f + b.sum[i] * g, a.top[i] = top;
      for (index_t c = 0; c < a.o_stride; c += kLanes) {
        float* o = a.o + (first + r) * a.o_stride + c;
        const V theirs = hn::Mul(hn::Load(d, b.o + (first + r) * b.o_stride + c), hn::Set(d, g));
        hn::Store(hn::MulAdd(hn::Load(d, o), hn::Set(d, f), theirs), d, o);
      }
    }
  }
  *a.met |= *b.met;
}

inline void store(const GroupShape& shape, const float* state, float* const* out, float* const* lse, index_t rows_asked) {
  const F d;
  const FewRowsState from(shape, const_cast<float*>(state));
  for (index_t first = 0, group = 0, count; first < shape.rows; first += count, ++group) {
    count = group_rows(shape.rows - first);
    const index_t keys = sums / count;
    for (index_t r = 0; r < std::min(count, rows_asked - first); ++r) {
      const index_t row = first + r, lane = group * 16 + r * keys;
      const bool met = (*from.met >> row & 1) != 0;
      float sum = 0;
      for (index_t i = lane; i < lane + keys; ++i) sum += from.sum[i];
      if (lse != nullptr) *lse[row] = met ? from.top[lane] + std::log(sum) : -infinity;
      if (!met) {
        std::fill_n(out[row], shape.out_dim(), 0.0f);
        continue;
      }
      const auto write = [&](const float* o, index_t width, float* to) HWY_ATTR {
        for (index_t c = 0; c < width; c += kLanes)
          store_first(hn::Mul(hn::Load(d, o + c), hn::Set(d, 1.0f / sum)), to + c, width - c);
      };
      const float* const o = from.o + row * from.o_stride;
      write(o, shape.latent, out[row]);
      write(o + padded_columns(shape.latent), shape.value_dim, out[row] + shape.latent);
    }
  }
}

inline FewRowsOps::Attend attend_of(const GroupShape& shape) {
  if (shape.latent > 0) return attend<stored::F32, true>;
  switch (shape.kv_dtype) {
    case DType::f32: return attend<stored::F32>;
    case DType::bf16: return attend<stored::Bf16>;
    case DType::f16: return attend<stored::F16>;
    case DType::q8: return attend<stored::Q8>;
  }
  return nullptr;
}

inline void make_bias(const GroupShape& shape, const KeyBlock& keys, const GroupRows& rows, float* to) {
  const auto count = static_cast<std::size_t>(keys.count);
  const auto first = keys.position.begin(), end = first + keys.count;
  const bool in_a_row = end[-1] - *first == keys.count - 1 && std::is_sorted(first, end);
  std::fill_n(to, padded_rows(shape.rows) * few_rows_block, 0.0f);
  for (index_t r = 0; r < shape.rows; ++r, to += few_rows_block) {
    const double* const potential = rows.potential_of(r);
    const double own = potential[std::max(rows.first_potential, rows.shift + rows.query(r))];
    if (in_a_row) {
      const double* const of_keys = potential + *first;
      for (std::size_t j = 0; j < count; ++j) to[j] = static_cast<float>(own - of_keys[j]);
    } else {
      for (std::size_t j = 0; j < count; ++j) to[j] = static_cast<float>(own - potential[keys.position[j]]);
    }
  }
}

inline constexpr FewRowsOps ops{load, attend_of, make_bias, merge, store};

inline const FewRowsOps* get_ops() { return &ops; }

}  // namespace attn::kernels::HWY_NAMESPACE::few_rows
HWY_AFTER_NAMESPACE();
#endif
