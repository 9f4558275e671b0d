// The scores that a tile's weights are relative to, and how they move; included once per instruction set.
#if defined(ATTN_KERNELS_TILE_REFERENCE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_TILE_REFERENCE_INL
#undef ATTN_KERNELS_TILE_REFERENCE_INL
#else
#define ATTN_KERNELS_TILE_REFERENCE_INL
#endif
#include <hwy/highway.h>

#include <cmath>

#include "attn/kernels/machine/exp-inl.hpp"
#include "attn/kernels/softmax/tile_product-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A batch whose weights add up to more moves the reference: keeps the sums far from overflow.
inline constexpr float move_reference_above = 4096.0f;
// A lane's first batch that adds up to less moves it too: weights that were flushed to zero would count.
inline constexpr float vanishing_sum = 0x1p-90f;

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

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
