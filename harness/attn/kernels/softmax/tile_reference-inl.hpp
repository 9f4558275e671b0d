// The scores that a tile's weights are relative to, and how they move; included once per instruction set.
#if defined(ATTN_KERNELS_TILE_REFERENCE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_TILE_REFERENCE_INL
#undef ATTN_KERNELS_TILE_REFERENCE_INL
#else
#define ATTN_KERNELS_TILE_REFERENCE_INL
#endif
#include <hwy/highway.h>

#include "attn/kernels/machine/exp-inl.hpp"
#include "attn/kernels/machine/lanes-inl.hpp"
#include "attn/kernels/softmax/tile_product-inl.hpp"
#include "attn/kernels/softmax/tile_weigh-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What a lane does depends on its own scores alone, never on its neighbours' nor on the way that its tile takes: a row's bits must
// not depend on theirs.
//   Largest score above 92.5, or in the lane's first batch below -93: the reference moves to it before weights are made, and from
//   then on the lane is far: its scores are made without the reference, which may be so large that they would drown in it.
//   Else weights that add up to more than 4096: reference, weights and sums are scaled by a power of two, which rounds nothing.
// Weights made by the reference as it was tell by their sums whether any lane may be of the first kind: a batch of at most 512
// keys with a score above 92.5 adds up to more than 2^92, one whose scores are all below -93 to less than 2^-83.
inline constexpr float scale_down_above = 4096.0f;  // keeps the sums far from overflow
inline constexpr float largest_score = 92.5f, lost_above = 0x1p92f;
inline constexpr float least_score = -93.0f, lost_below = 0x1p-83f;  // weights below 2^-126 are flushed to zero: they would count
// A tile whose first step comes to more, or to less than the inverse, has scores that are likely to be lost before its last.
inline constexpr float wide_above = 0x1p30f;

template <int W>
HWY_NOINLINE void scale_rows(float* rows, index_t n, const float* factor) {
  const F d;
  for (index_t x = 0; x < n; ++x) {
    for (int w = 0; w < W; ++w)
      hn::Store(hn::Mul(hn::Load(d, rows + (x * W + w) * L), hn::Load(d, factor + w * L)), d, rows + (x * W + w) * L);
  }
}

template <int W>
HWY_INLINE bool any_above(const float* rows, float limit) {
  const F d;
  Mask above = hn::Gt(hn::Load(d, rows), hn::Set(d, limit));
  for (int w = 1; w < W; ++w) above = hn::Or(above, hn::Gt(hn::Load(d, rows + w * L), hn::Set(d, limit)));
  return !hn::AllFalse(d, above);
}

// Some of `lanes` is below, or NaN.
template <int W>
HWY_INLINE bool any_below(const float* rows, float limit, std::uint64_t lanes) {
  const F d;
  bool below = false;
  for (int w = 0; w < W; ++w)
    below = below || !hn::AllFalse(d, hn::AndNot(hn::Ge(hn::Load(d, rows + w * L), hn::Set(d, limit)), lane_mask(lanes, w)));
  return below;
}

// Weights by the reference as it is. Stops after the first step of a tile that looks wide.
template <Scoring kScoring, int W>
HWY_INLINE void weigh(Tile& t, index_t head_dim, const KeyBatch& batch, float* p) {
  const F d;
  for (int w = 0; w < W; ++w) hn::Store(hn::Zero(d), d, t.batch_sum + w * L);
  for (index_t step = 0; step * key_step < batch.count; ++step) {
    weigh_one_step<Made::weights, kScoring, W>(t, head_dim, batch, step, p);
    if (step > 0 || t.unset == 0) continue;
    t.wide = any_above<W>(t.batch_sum, wide_above) ||
             ((batch.cut & 1) == 0 && any_below<W>(t.batch_sum, 1.0f / wide_above, ~std::uint64_t{0}));
    if (t.wide) return;
  }
}

// References, and with them what was summed so far, move by whole numbers. The sums before a lane's first batch are zeros.
template <int W>
HWY_NOINLINE void scale_sums(Tile& t, const TileShape& shape, std::uint64_t first, const float* shift) {
  const F d;
  if (t.fresh) return;
  HWY_ALIGN float factor[max_lanes];
  for (int w = 0; w < W; ++w) {
    const V by = hn::IfThenZeroElse(lane_mask(first, w), hn::Neg(hn::Load(d, shift + w * L)));
    hn::Store(power_of_two(by), d, factor + w * L);
  }
  scale_rows<W>(t.sum, 1, factor);
  scale_rows<W>(t.ot, shape.value_dim, factor);
}

// Moves the references of lanes whose largest scores (t.batch_sum) are out of reach. `left`: what is left to take from a score.
template <int W>
HWY_INLINE void move_references(Tile& t, const TileShape& shape, std::uint64_t first, float* left) {
  const F d;
  HWY_ALIGN float shift[max_lanes];
  std::uint64_t lost_lanes = 0;
  for (int w = 0; w < W; ++w) {
    const V top = hn::Load(d, t.batch_sum + w * L), minus_ref = hn::Load(d, t.minus_ref + w * L);
    const Mask far = lane_mask(t.far, w);
    const V taken = hn::IfThenElseZero(far, hn::Neg(minus_ref)), above = hn::Sub(top, taken);
    const Mask low = hn::And(hn::Lt(above, hn::Set(d, least_score)), hn::Gt(top, hn::Set(d, -infinity)));
    const Mask lost = hn::Or(hn::Gt(above, hn::Set(d, largest_score)), hn::And(low, lane_mask(first, w)));
    const V now = hn::IfThenElse(lost, hn::Round(top), taken), by = hn::IfThenElseZero(lost, hn::Sub(now, taken));
    hn::Store(now, d, left + w * L);
    hn::Store(by, d, shift + w * L);
    hn::Store(hn::IfThenElse(far, hn::Neg(now), hn::Sub(minus_ref, by)), d, t.minus_ref + w * L);
    lost_lanes |= mask_bits(d, lost) << (w * L);
  }
  if (lost_lanes != 0) scale_sums<W>(t, shape, first, shift);
  t.far |= lost_lanes;
}

// Weights of a tile with scores that a reference from before may not hold: the scores of a batch are made first.
template <Scoring kScoring, int W>
HWY_NOINLINE void weigh_wide(Tile& t, const TileShape& shape, const KeyBatch& batch, std::uint64_t first, float* p) {
  const F d;
  for (index_t step = 0; step * key_step < batch.count; ++step) {
    weigh_one_step<Made::scores, kScoring, W>(t, shape.head_dim, batch, step, p);
  }
  V top[W];
  ATTN_UNROLL for (int w = 0; w < W; ++w) top[w] = hn::Set(d, -infinity);
  for (index_t j = 0; j < batch.count; ++j) {
    ATTN_UNROLL for (int w = 0; w < W; ++w) top[w] = larger(hn::Load(d, p + (j * W + w) * L), top[w]);
  }
  for (int w = 0; w < W; ++w) hn::Store(top[w], d, t.batch_sum + w * L);
  HWY_ALIGN float left[max_lanes];
  move_references<W>(t, shape, first, left);
  for (int w = 0; w < W; ++w) hn::Store(hn::Zero(d), d, t.batch_sum + w * L);
  for (index_t j = 0; j < batch.count; j += sum_rows) {
    ATTN_UNROLL for (int w = 0; w < W; ++w) {
      const V minus = hn::Load(d, left + w * L);
      V total;
      ATTN_UNROLL for (int i = 0; i < sum_rows; ++i) {
        float* at = p + ((j + i) * W + w) * L;
        const V e = exp2_lanes(hn::Sub(hn::Load(d, at), minus));
        hn::Store(e, d, at);
        total = i == 0 ? e : hn::Add(total, e);
      }
      hn::Store(hn::Add(hn::Load(d, t.batch_sum + w * L), total), d, t.batch_sum + w * L);
    }
  }
}

template <int W>
HWY_NOINLINE void scale_down(Tile& t, const TileShape& shape, const KeyBatch& batch, std::uint64_t first, float* p) {
  const F d;
  HWY_ALIGN float shift[max_lanes], own[max_lanes];
  for (int w = 0; w < W; ++w) {
    const V sum = hn::Load(d, t.batch_sum + w * L);
    const V by = hn::IfThenElseZero(hn::Gt(sum, hn::Set(d, scale_down_above)), whole_log2(sum));
    hn::Store(by, d, shift + w * L);
    hn::Store(power_of_two(hn::Neg(by)), d, own + w * L);
    hn::Store(hn::Sub(hn::Load(d, t.minus_ref + w * L), by), d, t.minus_ref + w * L);
  }
  scale_sums<W>(t, shape, first, shift);
  scale_rows<W>(p, batch.count, own);
  scale_rows<W>(t.batch_sum, 1, own);
}

// What `weigh` left must not be used as it is.
template <int W>
HWY_INLINE bool is_off(const Tile& t, std::uint64_t first) {
  return t.wide || any_above<W>(t.batch_sum, scale_down_above) || (first != 0 && any_below<W>(t.batch_sum, lost_below, first));
}

template <Scoring kScoring, int W>
HWY_NOINLINE void weigh_again(Tile& t, const TileShape& shape, const KeyBatch& batch, std::uint64_t first, float* p) {
  t.wide = t.wide || any_above<W>(t.batch_sum, lost_above) || any_below<W>(t.batch_sum, lost_below, first);
  if (t.wide) weigh_wide<kScoring, W>(t, shape, batch, first, p);
  if (any_above<W>(t.batch_sum, scale_down_above)) scale_down<W>(t, shape, batch, first, p);
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
