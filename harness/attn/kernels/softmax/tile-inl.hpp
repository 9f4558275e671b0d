// The tile kernel; included once per instruction set.
#if defined(ATTN_KERNELS_TILE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_TILE_INL
#undef ATTN_KERNELS_TILE_INL
#else
#define ATTN_KERNELS_TILE_INL
#endif
#include <hwy/contrib/math/math-inl.h>

#include <algorithm>
#include <cmath>
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

// A batch whose weights add up to more moves the reference: keeps the sums far from overflow.
inline constexpr float move_reference_above = 4096.0f;
// A lane's first batch that adds up to less moves it too: weights that were flushed to zero would count.
inline constexpr float vanishing_sum = 0x1p-90f;

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

// Rows on their way into L2, a line at a time: a burst stalls the loads behind it, since the core has room for 16 lines under way.
// In the order in which they lie, so that the hardware's own prefetching joins in (line 0 of each row, line 1, ...: 2 to 4 % slower).
// g++ 12 takes a function that holds nothing but a prefetch for pure and drops its calls: this one has a state.
class Lines {
 public:
  Lines() = default;
  Lines(const float* const* rows, index_t count, index_t floats) : row_(rows), end_(rows + count), floats_(floats), left_(floats) {
    if (count > 0) line_ = *rows;
  }
  HWY_INLINE bool any() const { return row_ != end_; }
  HWY_INLINE void bring_in_next() {
    __builtin_prefetch(line_, 0, 2);
    constexpr index_t line = 16;
    line_ += line;
    left_ -= line;
    if (left_ > 0 || ++row_ == end_) return;
    line_ = *row_;
    left_ = floats_;
  }

 private:
  const float* const* row_ = nullptr;
  const float* const* end_ = nullptr;
  const float* line_ = nullptr;
  index_t floats_ = 0, left_ = 0;
};

// c[i] += rows[i][0..n) * b[0..n)[lanes]: R scalar broadcasts against W vectors, which follow each other every `stride` vectors.
// With kFetch, brings in the R rows of `fetch` meanwhile.
template <int R, int W, int kStride, bool kFetch>
HWY_INLINE void multiply_rows(const float* const* rows, const float* b, index_t n, V (&c)[R][W],
                              const float* const* fetch = nullptr) {
  const F d;
  const float* row[R];
  ATTN_UNROLL for (int i = 0; i < R; ++i) row[i] = rows[i];
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
HWY_INLINE void multiply_columns(const float* const* rows, index_t x, const float* p, index_t stride, index_t n, V (&c)[R][W],
                                 Lines& lines) {
  const F d;
  const auto multiply = [&](index_t j) HWY_ATTR {
    const float* a = rows[j] + x;
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

// Scores and weights of R keys, in W vectors of lanes out of the tile's kTile: `t`'s from vector `from` on. With kCut, lanes[i]
// says which lanes see key i; the weights of the others are zero.
template <int R, int W, int kTile, bool kCut, bool kFetch>
HWY_INLINE void weigh_rows(Tile& t, index_t head_dim, const float* const* k, const std::uint64_t* lanes, int from, float* p,
                           const float* const* fetch) {
  const F d;
  V c[R][W];
  {
    V start[W];
    load_row<W>(t.minus_ref + from * L, start);
    ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = start[w];
  }
  multiply_rows<R, W, kTile, kFetch>(k, t.qt + from * L, head_dim, c, fetch);
  V total[W];
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) {
    V e = exp2_lanes(c[i][w]);
    if constexpr (kCut) e = hn::IfThenElseZero(lane_mask(lanes[i], from + w), e);
    hn::Store(e, d, p + (i * kTile + from + w) * L);
    total[w] = i == 0 ? e : hn::Add(total[w], e);
  }
  ATTN_UNROLL for (int w = 0; w < W; ++w) {
    float* sum = t.batch_sum + (from + w) * L;
    hn::Store(hn::Add(hn::Load(d, sum), total[w]), d, sum);
  }
}

// Rows of a step that stay in registers together: as many accumulators as leave room for W lane vectors and a broadcast.
template <int W>
inline constexpr int step_rows = HWY_TARGET == HWY_AVX3 ? 8
                                 : W == 1               ? 8
                                                        : 4;

template <int W, int kTile, bool kCut, bool kFetch>
HWY_INLINE void weigh_step(Tile& t, index_t head_dim, const float* const* k, const std::uint64_t* lanes, int from, float* p,
                           const float* const* fetch) {
  constexpr int R = step_rows<W>;
  for (int i = 0; i < key_step; i += R) {
    weigh_rows<R, W, kTile, kCut, kFetch>(t, head_dim, k + i, lanes + i, from, p + L * kTile * i, kFetch ? fetch + i : nullptr);
  }
}

template <int W>
HWY_NOINLINE void weigh_fetching_step(Tile& t, index_t head_dim, const float* const* k, float* p, const float* const* fetch) {
  weigh_step<W, W, false, true>(t, head_dim, k, nullptr, 0, p, fetch);
}

// Vectors first..end-1 of the tile see keys of a step; a window's edge leaves whole vectors out.
struct VectorRange {
  int first, end;
};

template <int W>
HWY_INLINE VectorRange seeing_vectors(const std::uint64_t* lanes) {
  std::uint64_t seen = 0;
  for (index_t i = 0; i < key_step; ++i) seen |= lanes[i];
  constexpr std::uint64_t vector = (std::uint64_t{1} << L) - 1;
  int first = 0, end = W;
  while (first < W && (seen >> (first * L) & vector) == 0) ++first;
  while (end > first && (seen >> ((end - 1) * L) & vector) == 0) --end;
  return {first, end};
}

// A step that some lanes do not see. What whole vectors do not see is not computed for them.
template <int W, bool kFetch>
HWY_NOINLINE void weigh_cut_step(Tile& t, index_t head_dim, const float* const* k, const std::uint64_t* lanes, float* p,
                                 const float* const* fetch) {
  const F d;
  if constexpr (W > 1) {
    const auto [from, end] = seeing_vectors<W>(lanes);
    if (end - from < W) {
      for (index_t i = 0; i < key_step; ++i) {
        for (int w = 0; w < W; ++w) hn::Store(hn::Zero(d), d, p + (i * W + w) * L);
      }
      if (end - from == 1) weigh_step<1, W, true, kFetch>(t, head_dim, k, lanes, from, p, fetch);
      if (W == 3 && end - from == 2) weigh_step<2, W, true, kFetch>(t, head_dim, k, lanes, from, p, fetch);
      return;
    }
  }
  weigh_step<W, W, true, kFetch>(t, head_dim, k, lanes, 0, p, fetch);
}

template <int W>
HWY_INLINE void weigh(Tile& t, index_t head_dim, const KeyBatch& batch, float* p) {
  const F d;
  for (int w = 0; w < W; ++w) hn::Store(hn::Zero(d), d, t.batch_sum + w * L);
  for (index_t step = 0; step * key_step < batch.count; ++step) {
    const float* const* k = batch.k + step * key_step;
    const std::uint64_t* lanes = batch.lanes + step * key_step;
    float* to = p + step * key_step * W * L;
    const bool fetches = (step + 1) * key_step <= batch.fetch_count;
    const float* const* fetch = fetches ? batch.fetch[0] + step * key_step : nullptr;
    if (batch.cut >> step & 1) {
      (fetches ? weigh_cut_step<W, true> : weigh_cut_step<W, false>)(t, head_dim, k, lanes, to, fetch);
    } else if (fetches) {
      weigh_fetching_step<W>(t, head_dim, k, to, fetch);
    } else {
      weigh_step<W, W, false, false>(t, head_dim, k, lanes, 0, to, fetch);
    }
  }
}

template <int W>
HWY_NOINLINE void scale_rows(float* rows, index_t n, const float* factor) {
  const F d;
  for (index_t x = 0; x < n; ++x) {
    for (int w = 0; w < W; ++w)
      hn::Store(hn::Mul(hn::Load(d, rows + (x * W + w) * L), hn::Load(d, factor + w * L)), d, rows + (x * W + w) * L);
  }
}

// Lanes that see a key of the batch.
inline std::uint64_t seeing_lanes(const KeyBatch& batch) {
  std::uint64_t seen = 0;
  for (index_t step = 0; step * key_step < batch.count; ++step) {
    if ((batch.cut >> step & 1) == 0) return ~std::uint64_t{0};
    for (index_t j = step * key_step; j < (step + 1) * key_step; ++j) seen |= batch.lanes[j];
  }
  return seen;
}

// Scores of key j in vector w, relative to the references.
template <int W>
HWY_INLINE V scores_of(const Tile& t, index_t head_dim, const KeyBatch& batch, index_t j, int w) {
  const F d;
  V s = hn::Load(d, t.minus_ref + w * L);
  for (index_t x = 0; x < head_dim; ++x) s = hn::MulAdd(hn::Set(d, batch.k[j][x]), hn::Load(d, t.qt + (x * W + w) * L), s);
  return s;
}

// The largest score of each lane over the batch, relative to its reference; -inf where it sees none.
template <int W>
HWY_NOINLINE void largest_scores(const Tile& t, index_t head_dim, const KeyBatch& batch, float* top) {
  const F d;
  for (int w = 0; w < W; ++w) {
    V best = hn::Set(d, -infinity);
    for (index_t j = 0; j < batch.count; ++j) {
      V s = scores_of<W>(t, head_dim, batch, j, w);
      if (batch.cut >> (j / key_step) & 1) s = hn::IfThenElse(lane_mask(batch.lanes[j], w), s, hn::Set(d, -infinity));
      best = hn::IfThenElse(hn::Gt(s, best), s, best);
    }
    hn::Store(best, d, top + w * L);
  }
}

// Weights and sums of the `lost` lanes once more, by their new references. The other lanes' are left as they are: a row's bits
// must not depend on its neighbours'.
template <int W>
HWY_NOINLINE void weigh_again(Tile& t, index_t head_dim, const KeyBatch& batch, std::uint64_t lost, float* p) {
  const F d;
  HWY_ALIGN float top[max_lanes];
  largest_scores<W>(t, head_dim, batch, top);
  for (int w = 0; w < W; ++w) {
    const Mask again = lane_mask(lost, w);
    // Near zero, unless the logits are so large (1e9) that rounding alone moves them by more than a weight has room for: then
    // taken away too, so that weights stay finite.
    const V left = hn::Load(d, top + w * L);
    const V rounding =
        hn::IfThenElseZero(hn::And(hn::Gt(hn::Abs(left), hn::Set(d, 100.0f)), hn::Lt(hn::Abs(left), hn::Set(d, infinity))), left);
    V sum = hn::Zero(d);
    for (index_t j = 0; j < batch.count; ++j) {
      V e = exp2_lanes(hn::Sub(scores_of<W>(t, head_dim, batch, j, w), rounding));
      if (batch.cut >> (j / key_step) & 1) e = hn::IfThenElseZero(lane_mask(batch.lanes[j], w), e);
      float* to = p + (j * W + w) * L;
      hn::Store(hn::IfThenElse(again, e, hn::Load(d, to)), d, to);
      sum = hn::Add(sum, e);
    }
    float* to = t.batch_sum + w * L;
    hn::Store(hn::IfThenElse(again, sum, hn::Load(d, to)), d, to);
  }
}

// Moves the references so that no weight of this batch is far above 1, nor all those of a lane's first batch far below.
template <int W>
HWY_NOINLINE void move_reference(Tile& t, const TileShape& shape, const KeyBatch& batch, std::uint64_t first, float* p) {
  HWY_ALIGN float top[max_lanes], factor[max_lanes], own[max_lanes];
  // Each lane decides for itself, so that no row's bits depend on its neighbours'.
  std::uint64_t lost = 0;  // lanes whose weights over- or underflowed
  for (int i = 0; i < W * L; ++i) {
    const bool is_first = (first >> i & 1) != 0;
    lost |= std::uint64_t{t.batch_sum[i] > 0x1p100f || (is_first && !(t.batch_sum[i] >= vanishing_sum))} << i;
  }
  if (lost != 0) largest_scores<W>(t, shape.head_dim, batch, top);
  for (int i = 0; i < W * L; ++i) {
    const bool is_first = (first >> i & 1) != 0;
    float shift = 0.0f;
    if ((lost >> i & 1) != 0)
      shift = is_first && top[i] == -infinity ? 0.0f : top[i];
    else if (t.batch_sum[i] > move_reference_above)
      shift = static_cast<float>(std::ilogb(t.batch_sum[i]));  // rounds nothing
    factor[i] = is_first ? 1.0f : std::exp2(-shift);           // the sums of a first batch are zero
    own[i] = std::exp2(-shift);
    t.minus_ref[i] -= shift;
  }
  if (!t.fresh) {
    scale_rows<W>(t.sum, 1, factor);
    scale_rows<W>(t.ot, shape.value_dim, factor);
  }
  scale_rows<W>(p, batch.count, own);
  scale_rows<W>(t.batch_sum, 1, own);
  if (lost != 0) weigh_again<W>(t, shape.head_dim, batch, lost, p);
}

// True when the weights just made must not be used as they are. `first`: lanes that see their first keys in this batch.
template <int W>
HWY_INLINE bool reference_is_off(const Tile& t, std::uint64_t first) {
  const F d;
  V largest = hn::Load(d, t.batch_sum);
  for (int w = 1; w < W; ++w) largest = hn::Max(largest, hn::Load(d, t.batch_sum + w * L));
  bool off = !hn::AllFalse(d, hn::Gt(largest, hn::Set(d, move_reference_above)));
  if (first != 0) {
    for (int w = 0; w < W; ++w) {
      const Mask fine = hn::Ge(hn::Load(d, t.batch_sum + w * L), hn::Set(d, vanishing_sum));
      off = off || !hn::AllFalse(d, hn::AndNot(fine, lane_mask(first, w)));
    }
  }
  return off;
}

// Keys at the ends of a batch, in stairs: of the first ones, before[w-1] are seen by the first w vectors only; of the last ones,
// after[w-1] by the last w only, the widest stair first.
template <int W>
struct Edges {
  index_t before[3] = {}, after[3] = {};
  index_t middle = 0;
};

template <int W>
HWY_INLINE Edges<W> find_edges(const KeyBatch& batch) {
  Edges<W> edges;
  edges.middle = batch.count;
  if (W == 1 || batch.cut == 0) return edges;
  index_t step = 0, end = batch.count / key_step;
  for (int stair = 1; step < end && (batch.cut >> step & 1) != 0; ++step) {
    const VectorRange range = seeing_vectors<W>(batch.lanes + step * key_step);
    stair = std::max(stair, range.end);
    if (stair == W) break;
    edges.before[stair - 1] += key_step;
  }
  for (int stair = 1; end > step && (batch.cut >> (end - 1) & 1) != 0; --end) {
    const VectorRange range = seeing_vectors<W>(batch.lanes + (end - 1) * key_step);
    stair = std::max(stair, W - range.first);
    if (stair == W) break;
    edges.after[stair - 1] += key_step;
  }
  edges.middle = (end - step) * key_step;
  return edges;
}

template <int R, int W, bool kStairs>
HWY_INLINE void accumulate_rows(Tile& t, index_t x, const KeyBatch& batch, const Edges<W>& edges, const float* p, Lines& lines) {
  const F d;
  V c[R][W];
  float* o = t.ot + x * W * L;
  // A batch is summed by itself and then added: one chain over all keys would lose digits as keys grow many (at 8192 keys four
  // times the error of a blocked product).
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = hn::Zero(d);
  const float* const* v = batch.v;
  const auto go_on = [&](index_t n) HWY_ATTR {
    v += n;
    p += n * W * L;
  };
  if constexpr (kStairs && W > 1) multiply_columns<R, W, 0, 1>(v, x, p, W * L, edges.before[0], c, lines), go_on(edges.before[0]);
  if constexpr (kStairs && W > 2) multiply_columns<R, W, 0, 2>(v, x, p, W * L, edges.before[1], c, lines), go_on(edges.before[1]);
  multiply_columns<R, W, 0, W>(v, x, p, W * L, edges.middle, c, lines), go_on(edges.middle);
  if constexpr (kStairs && W > 2) multiply_columns<R, W, 1, W>(v, x, p, W * L, edges.after[1], c, lines), go_on(edges.after[1]);
  if constexpr (kStairs && W > 1) multiply_columns<R, W, W - 1, W>(v, x, p, W * L, edges.after[0], c, lines);
  if (!t.fresh) {
    ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] =
        hn::Add(c[i][w], hn::Load(d, o + (i * W + w) * L));
  }
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) hn::Store(c[i][w], d, o + (i * W + w) * L);
}

// As `accumulate`, but what a lane must not see is not even multiplied by zero.
template <int W>
HWY_NOINLINE void accumulate_guarded(Tile& t, const TileShape& shape, const KeyBatch& batch, const float* p) {
  const F d;
  for (index_t x = 0; x < shape.value_dim; ++x) {
    for (int w = 0; w < W; ++w) {
      float* o = t.ot + (x * W + w) * L;
      V c = hn::Zero(d);
      for (index_t j = 0; j < batch.count; ++j) {
        const V next = hn::MulAdd(hn::Set(d, batch.v[j][x]), hn::Load(d, p + (j * W + w) * L), c);
        c = batch.cut >> (j / key_step) & 1 ? hn::IfThenElse(lane_mask(batch.lanes[j], w), next, c) : next;
      }
      if (!t.fresh) c = hn::Add(c, hn::Load(d, o));
      hn::Store(c, d, o);
    }
  }
}

template <int W, bool kStairs>
HWY_INLINE void accumulate_all(Tile& t, const TileShape& shape, const KeyBatch& batch, const Edges<W>& edges, const float* p) {
  constexpr int R = W == 1 && HWY_TARGET == HWY_AVX3 ? 16 : step_rows<W>;
  Lines lines(batch.fetch[1], batch.fetch_count, shape.value_dim);
  index_t x = 0;
  for (; x + R <= shape.value_dim; x += R) accumulate_rows<R, W, kStairs>(t, x, batch, edges, p, lines);
  if constexpr (R > 8) {
    if (x + 8 <= shape.value_dim) accumulate_rows<8, W, kStairs>(t, x, batch, edges, p, lines), x += 8;
  }
  if constexpr (R > 4) {
    if (x + 4 <= shape.value_dim) accumulate_rows<4, W, kStairs>(t, x, batch, edges, p, lines), x += 4;
  }
  for (; x < shape.value_dim; ++x) accumulate_rows<1, W, kStairs>(t, x, batch, edges, p, lines);
}

// Apart from the others: between stairs the accumulators pass through memory.
template <int W>
HWY_NOINLINE void accumulate_in_stairs(Tile& t, const TileShape& shape, const KeyBatch& batch, const Edges<W>& edges,
                                       const float* p) {
  accumulate_all<W, true>(t, shape, batch, edges, p);
}

template <int W>
HWY_INLINE void accumulate(Tile& t, const TileShape& shape, const KeyBatch& batch, const float* p) {
  if (HWY_UNLIKELY(batch.guard && batch.cut != 0)) return accumulate_guarded<W>(t, shape, batch, p);
  const Edges<W> edges = find_edges<W>(batch);
  if (edges.middle < batch.count)
    accumulate_in_stairs<W>(t, shape, batch, edges, p);
  else
    accumulate_all<W, false>(t, shape, batch, edges, p);
}

template <int W>
void attend(Tile& t, const TileShape& shape, const KeyBatch& batch, float* p) {
  const F d;
  weigh<W>(t, shape.head_dim, batch, p);
  const std::uint64_t first = t.unset != 0 ? t.unset & seeing_lanes(batch) : 0;
  if (HWY_UNLIKELY(reference_is_off<W>(t, first))) move_reference<W>(t, shape, batch, first, p);
  t.unset &= ~first;
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
bool finite(const Tile& t, const TileShape& shape) {
  const F d;
  V worst[W];
  for (int w = 0; w < W; ++w) worst[w] = hn::Zero(d);
  if (!t.fresh) {
    for (index_t x = 0; x < shape.value_dim; ++x) {
      for (int w = 0; w < W; ++w) worst[w] = hn::MulAdd(hn::Load(d, t.ot + (x * W + w) * L), hn::Zero(d), worst[w]);
    }
  }
  for (int w = 1; w < W; ++w) worst[0] = hn::Add(worst[0], worst[w]);
  return hn::AllTrue(d, hn::Eq(worst[0], worst[0]));
}

template <int W>
void merge(Tile& t, const TileShape& shape, const Tile& other) {
  const F d;
  if (other.fresh) return;
  HWY_ALIGN float own[max_lanes], others[max_lanes];
  for (index_t i = 0; i < W * L; ++i) {
    const bool mine = !t.fresh && (t.unset >> i & 1) == 0;
    const bool theirs = (other.unset >> i & 1) == 0;
    const float minus_ref = mine && theirs ? std::min(t.minus_ref[i], other.minus_ref[i])
                            : mine         ? t.minus_ref[i]
                                           : other.minus_ref[i];
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
  HWY_ALIGN float spare[max_head_dim];
  HWY_ALIGN float factor[max_lanes], log_sum[max_lanes] = {};
  float* target[max_lanes];
  if (lse != nullptr && !t.fresh) {
    const F d;
    for (int w = 0; w < W; ++w) hn::Store(hn::Log2(d, hn::Load(d, t.sum + w * L)), d, log_sum + w * L);
  }
  for (index_t i = 0; i < W * L; ++i) {
    const bool seen = i < count && (t.unset >> i & 1) == 0 && !t.fresh;
    target[i] = seen ? rows[i] : spare;
    factor[i] = seen ? 1.0f / t.sum[i] : 0.0f;
    if (i >= count) continue;
    if (!seen) std::fill_n(rows[i], shape.value_dim, 0.0f);
    if (lse != nullptr) *lse[i] = seen ? (log_sum[i] - t.minus_ref[i]) / log2_e : -infinity;
  }
  if (t.fresh) return;
  for (int w = 0; w < W; ++w) {
    lanes_to_rows(t.ot + w * L, W * L, shape.value_dim, factor + w * L, target + w * L);
  }
}

template <int W>
inline constexpr TileOps ops_of{W * L, load<W>, resume<W>, attend<W>, finite<W>, merge<W>, store<W>};

inline const TileOps* ops_for(int vectors) { return vectors == 1 ? &ops_of<1> : vectors == 2 ? &ops_of<2> : &ops_of<3>; }

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
