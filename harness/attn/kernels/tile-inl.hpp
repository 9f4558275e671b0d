// The tile kernel; included once per instruction set.
#if defined(ATTN_KERNELS_TILE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_TILE_INL
#undef ATTN_KERNELS_TILE_INL
#else
#define ATTN_KERNELS_TILE_INL
#endif
#include <algorithm>
#include <cmath>
#include <limits>

#include "attn/kernels/tile.hpp"
#include "attn/kernels/exp-inl.hpp"
#include "attn/kernels/transpose-inl.hpp"

#define ATTN_UNROLL _Pragma("GCC unroll 16")

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Mask = hn::Mask<F>;
inline constexpr index_t L = hn::MaxLanes(F());
inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float log2_e = 1.44269504f;

// A weight sum above this moves the reference: keeps exp2(s - ref) and the sums far from overflow.
inline constexpr float move_reference_above = 4096.0f;

template <int W>
HWY_INLINE void load_row(const float* from, V (&to)[W]) {
  ATTN_UNROLL for (int w = 0; w < W; ++w) to[w] = hn::Load(F(), from + w * L);
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

// c[i] += rows[i][0..n) * b[0..n)[lanes]: R scalar broadcasts against W vectors.
template <int R, int W>
HWY_INLINE void multiply_rows(const float* const* rows, const float* b, index_t n, V (&c)[R][W]) {
  const F d;
  const float* row[R];
  ATTN_UNROLL for (int i = 0; i < R; ++i) row[i] = rows[i];
  index_t x = 0;
  if constexpr (R * W <= 8 && HWY_TARGET == HWY_AVX3) {
    // 8 chains of latency 4 on 2 ports leave no slack: even and odd x apart.
    V odd[R];
    ATTN_UNROLL for (int i = 0; i < R; ++i) odd[i] = hn::Zero(d);
    for (; x + 2 <= n; x += 2) {
      const V b0 = hn::Load(d, b), b1 = hn::Load(d, b + L);
      b += 2 * L;
      ATTN_UNROLL for (int i = 0; i < R; ++i) {
        c[i][0] = hn::MulAdd(hn::Set(d, row[i][x]), b0, c[i][0]);
        odd[i] = hn::MulAdd(hn::Set(d, row[i][x + 1]), b1, odd[i]);
      }
    }
    ATTN_UNROLL for (int i = 0; i < R; ++i) c[i][0] = hn::Add(c[i][0], odd[i]);
  }
  for (; x < n; ++x) {
    V lane[W];
    load_row<W>(b, lane);
    b += W * L;
    ATTN_UNROLL for (int i = 0; i < R; ++i) {
      const V a = hn::Set(d, row[i][x]);
      ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = hn::MulAdd(a, lane[w], c[i][w]);
    }
  }
}

// c[i] += sum_j rows[j][x + i] * p[j][lanes]. Meanwhile fetches next[j][fetch] unless next is null: one line an iteration, since a
// burst of prefetches stalls the loads behind it (measured: -2 %).
template <int R, int W, bool kFetch>
HWY_INLINE void multiply_columns(const float* const* rows, index_t x, const float* p, index_t n, V (&c)[R][W],
                                 const float* const* next, index_t fetch) {
  const F d;
  for (index_t j = 0; j < n; ++j) {
    const float* a = rows[j] + x;
    if constexpr (kFetch) __builtin_prefetch(next[j] + fetch, 0, 2);
    V lane[W];
    load_row<W>(p, lane);
    p += W * L;
    ATTN_UNROLL for (int i = 0; i < R; ++i) {
      const V value = hn::Set(d, a[i]);
      ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = hn::MulAdd(value, lane[w], c[i][w]);
    }
  }
}

// Scores and weights of one step of 8 keys, R at a time. With kCut, lanes[] decides; with kSearch, lanes without a
// reference get one: the largest score that they see here.
template <int R, int W, bool kCut, bool kSearch>
HWY_INLINE void weigh_rows(Tile& t, index_t head_dim, const float* const* k, const std::uint64_t* lanes, float* p) {
  const F d;
  V c[R][W];
  {
    V start[W];
    load_row<W>(t.minus_ref, start);
    ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = start[w];
  }
  multiply_rows<R, W>(k, t.qt, head_dim, c);
  if constexpr (kSearch) {
    for (int w = 0; w < W; ++w) {
      V top = hn::Set(d, -infinity);
      for (int i = 0; i < R; ++i) {
        // A NaN score makes the reference infinite, and with it every weight of the lane NaN.
        const V score = hn::IfThenElse(hn::Eq(c[i][w], c[i][w]), c[i][w], hn::Set(d, infinity));
        top = hn::Max(top, kCut ? hn::IfThenElse(lane_mask(lanes[i], w), score, hn::Set(d, -infinity)) : score);
      }
      const Mask finds = hn::And(lane_mask(t.unset, w), hn::Gt(top, hn::Set(d, -infinity)));
      const V shift = hn::IfThenElseZero(finds, top);
      for (int i = 0; i < R; ++i) c[i][w] = hn::Sub(c[i][w], shift);
      float* ref = t.minus_ref + w * L;
      hn::Store(hn::Sub(hn::Load(d, ref), shift), d, ref);
      std::uint8_t bits[8] = {};
      hn::StoreMaskBits(d, finds, bits);
      std::uint64_t found = 0;
      for (int b = 0; b < 8; ++b) found |= static_cast<std::uint64_t>(bits[b]) << (8 * b);
      t.unset &= ~(found << (static_cast<std::uint64_t>(w) * L));
    }
  }
  V total[W];
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) {
    V e = exp2_lanes(c[i][w]);
    if constexpr (kCut) e = hn::IfThenElseZero(lane_mask(lanes[i], w), e);
    hn::Store(e, d, p + (i * W + w) * L);
    total[w] = i == 0 ? e : hn::Add(total[w], e);
  }
  ATTN_UNROLL for (int w = 0; w < W; ++w) {
    float* sum = t.batch_sum + w * L;
    hn::Store(hn::Add(hn::Load(d, sum), total[w]), d, sum);
  }
}

// Rows of a step that stay in registers together: as many accumulators as leave room for W lane vectors and a broadcast.
template <int W>
inline constexpr int step_rows = HWY_TARGET == HWY_AVX3 ? 8 : W == 1 ? 8 : 4;

template <int W, bool kCut, bool kSearch>
HWY_INLINE void weigh_step(Tile& t, index_t head_dim, const float* const* k, const std::uint64_t* lanes, float* p) {
  constexpr int R = step_rows<W>;
  for (int i = 0; i < key_step; i += R) weigh_rows<R, W, kCut, kSearch>(t, head_dim, k + i, kCut ? lanes + i : lanes, p + i * W * L);
}

template <int W>
HWY_NOINLINE void search_step(Tile& t, index_t head_dim, const float* const* k, const std::uint64_t* lanes, bool cut, float* p) {
  if (cut) weigh_step<W, true, true>(t, head_dim, k, lanes, p);
  else weigh_step<W, false, true>(t, head_dim, k, lanes, p);
}

template <int W>
HWY_INLINE void weigh(Tile& t, index_t head_dim, const KeyBatch& batch, float* p) {
  const F d;
  for (int w = 0; w < W; ++w) hn::Store(hn::Zero(d), d, t.batch_sum + w * L);
  for (index_t step = 0; step * key_step < batch.count; ++step) {
    const float* const* k = batch.k + step * key_step;
    const std::uint64_t* lanes = batch.lanes + step * key_step;
    float* to = p + step * key_step * W * L;
    const bool cut = batch.cut >> step & 1;
    if (HWY_UNLIKELY(t.unset != 0)) search_step<W>(t, head_dim, k, lanes, cut, to);
    else if (cut) weigh_step<W, true, false>(t, head_dim, k, lanes, to);
    else weigh_step<W, false, false>(t, head_dim, k, lanes, to);
  }
}

template <int W>
HWY_NOINLINE void scale_rows(float* rows, index_t n, const float* factor) {
  const F d;
  for (index_t x = 0; x < n; ++x) {
    for (int w = 0; w < W; ++w) hn::Store(hn::Mul(hn::Load(d, rows + (x * W + w) * L), hn::Load(d, factor + w * L)), d, rows + (x * W + w) * L);
  }
}

// Moves the reference so that no weight of this batch is far above 1.
template <int W>
HWY_NOINLINE void move_reference(Tile& t, const TileShape& shape, const KeyBatch& batch, float* p) {
  const F d;
  HWY_ALIGN float shift[max_lanes], factor[max_lanes];
  bool overflow = false;
  for (int i = 0; i < W * L; ++i) overflow = overflow || t.batch_sum[i] > 0x1p100f;
  if (!overflow) {
    // Powers of two: nothing is rounded.
    for (int i = 0; i < W * L; ++i) {
      shift[i] = t.batch_sum[i] > move_reference_above ? static_cast<float>(std::ilogb(t.batch_sum[i])) : 0.0f;
      factor[i] = std::exp2(-shift[i]);
    }
    scale_rows<W>(p, batch.count, factor);
    scale_rows<W>(t.batch_sum, 1, factor);
  } else {
    for (int w = 0; w < W; ++w) {
      V top = hn::Zero(d);
      const V start = hn::Load(d, t.minus_ref + w * L);
      for (index_t j = 0; j < batch.count; ++j) {
        V s = start;
        for (index_t x = 0; x < shape.head_dim; ++x) s = hn::MulAdd(hn::Set(d, batch.k[j][x]), hn::Load(d, t.qt + (x * W + w) * L), s);
        if (batch.cut >> (j / key_step) & 1) s = hn::IfThenElseZero(lane_mask(batch.lanes[j], w), s);
        top = hn::Max(s, top);
      }
      hn::Store(top, d, shift + w * L);
      hn::Store(exp2_lanes(hn::Neg(top)), d, factor + w * L);
    }
  }
  for (int w = 0; w < W; ++w) hn::Store(hn::Sub(hn::Load(d, t.minus_ref + w * L), hn::Load(d, shift + w * L)), d, t.minus_ref + w * L);
  if (!t.fresh) {
    scale_rows<W>(t.sum, 1, factor);
    scale_rows<W>(t.ot, shape.value_dim, factor);
  }
  if (overflow) weigh<W>(t, shape.head_dim, batch, p);
}

template <int R, int W>
HWY_INLINE void accumulate_rows(Tile& t, const TileShape& shape, index_t x, const KeyBatch& batch, const float* p) {
  const F d;
  V c[R][W];
  float* o = t.ot + x * W * L;
  if (t.fresh) {
    ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = hn::Zero(d);
  } else {
    ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = hn::Load(d, o + (i * W + w) * L);
  }
  if (batch.next_k != nullptr) {
    // The first half of the value columns fetches the next keys, the second the next values.
    const bool keys = 2 * x < shape.value_dim;
    const index_t from = keys ? 2 * x * shape.head_dim / shape.value_dim : 2 * x - shape.value_dim;
    multiply_columns<R, W, true>(batch.v, x, p, batch.count, c, keys ? batch.next_k : batch.next_v, from);
  } else {
    multiply_columns<R, W, false>(batch.v, x, p, batch.count, c, nullptr, 0);
  }
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) hn::Store(c[i][w], d, o + (i * W + w) * L);
}

// True when a value row that some lane must not see holds an infinity or a NaN: then 0 * v would leak.
template <int W>
HWY_INLINE bool hidden_nonfinite(const KeyBatch& batch, index_t value_dim) {
  const F d;
  constexpr std::uint64_t all = (std::uint64_t{1} << (W * L)) - 1;
  V worst = hn::Zero(d);
  float rest = 0;
  for (index_t j = 0; j < batch.count; ++j) {
    if ((batch.cut >> (j / key_step) & 1) == 0 || (batch.lanes[j] & all) == all) continue;
    index_t x = 0;
    for (; x + L <= value_dim; x += L) worst = hn::MulAdd(hn::LoadU(d, batch.v[j] + x), hn::Zero(d), worst);
    for (; x < value_dim; ++x) rest += batch.v[j][x] * 0.0f;
  }
  return !hn::AllTrue(d, hn::Eq(worst, worst)) || rest != rest;
}

template <int W>
HWY_NOINLINE void accumulate_guarded(Tile& t, const TileShape& shape, const KeyBatch& batch, const float* p) {
  const F d;
  for (index_t x = 0; x < shape.value_dim; ++x) {
    for (int w = 0; w < W; ++w) {
      float* o = t.ot + (x * W + w) * L;
      V c = t.fresh ? hn::Zero(d) : hn::Load(d, o);
      for (index_t j = 0; j < batch.count; ++j) {
        const V next = hn::MulAdd(hn::Set(d, batch.v[j][x]), hn::Load(d, p + (j * W + w) * L), c);
        c = batch.cut >> (j / key_step) & 1 ? hn::IfThenElse(lane_mask(batch.lanes[j], w), next, c) : next;
      }
      hn::Store(c, d, o);
    }
  }
}

template <int W>
HWY_INLINE void accumulate(Tile& t, const TileShape& shape, const KeyBatch& batch, const float* p) {
  if (batch.cut != 0 && HWY_UNLIKELY(hidden_nonfinite<W>(batch, shape.value_dim))) return accumulate_guarded<W>(t, shape, batch, p);
  constexpr int R = W == 1 && HWY_TARGET == HWY_AVX3 ? 16 : step_rows<W>;
  index_t x = 0;
  for (; x + R <= shape.value_dim; x += R) accumulate_rows<R, W>(t, shape, x, batch, p);
  if constexpr (R > 8) {
    if (x + 8 <= shape.value_dim) accumulate_rows<8, W>(t, shape, x, batch, p), x += 8;
  }
  if constexpr (R > 4) {
    if (x + 4 <= shape.value_dim) accumulate_rows<4, W>(t, shape, x, batch, p), x += 4;
  }
  for (; x < shape.value_dim; ++x) accumulate_rows<1, W>(t, shape, x, batch, p);
}

template <int W>
void attend(Tile& t, const TileShape& shape, const KeyBatch& batch, float* p) {
  const F d;
  weigh<W>(t, shape.head_dim, batch, p);
  V largest = hn::Load(d, t.batch_sum);
  for (int w = 1; w < W; ++w) largest = hn::Max(largest, hn::Load(d, t.batch_sum + w * L));
  if (HWY_UNLIKELY(!hn::AllFalse(d, hn::Gt(largest, hn::Set(d, move_reference_above))))) move_reference<W>(t, shape, batch, p);
  accumulate<W>(t, shape, batch, p);
  for (int w = 0; w < W; ++w) {
    const V batch_sum = hn::Load(d, t.batch_sum + w * L);
    hn::Store(t.fresh ? batch_sum : hn::Add(hn::Load(d, t.sum + w * L), batch_sum), d, t.sum + w * L);
  }
  t.fresh = false;
}

inline std::uint64_t first_lanes(index_t count) { return (std::uint64_t{1} << count) - 1; }

template <int W>
void load(Tile& t, const TileShape& shape, const float* const* rows, index_t count, float factor) {
  const F d;
  HWY_ALIGN static constexpr float zeros[max_head_dim] = {};
  const float* source[max_lanes];
  for (index_t i = 0; i < W * L; ++i) source[i] = i < count ? rows[i] : zeros;
  for (int w = 0; w < W; ++w) {
    rows_to_lanes(source + w * L, shape.head_dim, hn::Set(d, factor), t.qt + w * L, W * L);
    hn::Store(hn::Zero(d), d, t.minus_ref + w * L);
  }
  t.unset = first_lanes(count);
  t.fresh = true;
}

template <int W>
void resume(Tile& t, const TileShape& shape, const float* const* rows, index_t count, const float* const* lse) {
  const F d;
  HWY_ALIGN static constexpr float zeros[max_head_dim] = {};
  const float* source[max_lanes];
  for (index_t i = 0; i < W * L; ++i) {
    const bool seen = i < count && *lse[i] != -infinity;
    source[i] = seen ? rows[i] : zeros;
    t.minus_ref[i] = seen ? -*lse[i] * log2_e : 0.0f;
    t.sum[i] = seen ? 1.0f : 0.0f;
    if (seen) t.unset &= ~(std::uint64_t{1} << i);
  }
  for (int w = 0; w < W; ++w) rows_to_lanes(source + w * L, shape.value_dim, hn::Set(d, 1.0f), t.ot + w * L, W * L);
  t.fresh = false;
}

template <int W>
void merge(Tile& t, const TileShape& shape, const Tile& other) {
  const F d;
  if (other.fresh) return;
  HWY_ALIGN float own[max_lanes], others[max_lanes];
  for (index_t i = 0; i < W * L; ++i) {
    const bool mine = !t.fresh && (t.unset >> i & 1) == 0;
    const bool theirs = (other.unset >> i & 1) == 0;
    const float minus_ref = mine && theirs ? std::min(t.minus_ref[i], other.minus_ref[i]) : mine ? t.minus_ref[i] : other.minus_ref[i];
    own[i] = mine ? std::exp2(minus_ref - t.minus_ref[i]) : 0.0f;
    others[i] = theirs ? std::exp2(minus_ref - other.minus_ref[i]) : 0.0f;
    t.minus_ref[i] = minus_ref;
  }
  const auto add = [&](float* to, const float* from, index_t n) HWY_ATTR {
    for (index_t x = 0; x < n; ++x) {
      for (int w = 0; w < W; ++w) {
        const index_t at = (x * W + w) * L;
        const V theirs = hn::Mul(hn::Load(d, from + at), hn::Load(d, others + w * L));
        hn::Store(t.fresh ? theirs : hn::MulAdd(hn::Load(d, to + at), hn::Load(d, own + w * L), theirs), d, to + at);
      }
    }
  };
  add(t.sum, other.sum, 1);
  add(t.ot, other.ot, shape.value_dim);
  t.unset &= other.unset;
  t.fresh = false;
}

template <int W>
void store(const Tile& t, const TileShape& shape, float* const* rows, index_t count, float* const* lse) {
  const F d;
  HWY_ALIGN float spare[max_head_dim];
  HWY_ALIGN float factor[max_lanes];
  float* target[max_lanes];
  for (index_t i = 0; i < W * L; ++i) {
    const bool seen = i < count && (t.unset >> i & 1) == 0 && !t.fresh;
    target[i] = seen ? rows[i] : spare;
    factor[i] = seen ? 1.0f / t.sum[i] : 0.0f;
    if (i >= count) continue;
    if (!seen) std::fill_n(rows[i], shape.value_dim, 0.0f);
    if (lse != nullptr) *lse[i] = seen ? (std::log2(t.sum[i]) - t.minus_ref[i]) / log2_e : -infinity;
  }
  if (t.fresh) return;
  for (int w = 0; w < W; ++w) {
    lanes_to_rows(t.ot + w * L, W * L, shape.value_dim, hn::Load(d, factor + w * L), target + w * L);
  }
}

template <int W>
inline constexpr TileOps ops_of{W * L, load<W>, resume<W>, attend<W>, merge<W>, store<W>};

inline const TileOps* ops_for(int vectors) { return vectors == 1 ? &ops_of<1> : vectors == 2 ? &ops_of<2> : &ops_of<3>; }

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
