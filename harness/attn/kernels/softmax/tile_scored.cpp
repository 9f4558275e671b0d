#include "attn/kernels/softmax/tile.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/softmax/tile_scored.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/softmax/tile-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
const TileOps* scored_ops(Scoring scoring, int vectors) {
  if (scoring == Scoring::paired) return ops_for<Scoring::paired>(vectors);
  return scoring == Scoring::biased ? ops_for<Scoring::biased>(vectors) : ops_for<Scoring::capped>(vectors);
}

void spread_mask(const float* const* rows, index_t keys, int vectors, float* bias, std::uint64_t* seen) {
  const F d;
  for (int w = 0; w < vectors; ++w) rows_to_lanes(rows + w * L, keys, hn::Set(d, log2_e), bias + w * L, vectors * L);
  const V hides = hn::Set(d, -infinity);
  for (index_t j = 0; j < keys; ++j) {
    std::uint64_t hidden = 0;
    for (int w = 0; w < vectors; ++w) {
      float* const at = bias + (j * vectors + w) * L;
      const V number = hn::Load(d, at);
      const Mask none = hn::Eq(number, hides);
      hn::Store(hn::IfThenZeroElse(none, number), d, at);
      hidden |= mask_bits(d, none) << (w * L);
    }
    seen[j] = ~hidden;
  }
}
}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(scored_ops);
HWY_EXPORT(spread_mask);

const TileOps& scored_tile_ops(Scoring scoring, int vectors) {
  return scoring == Scoring::plain ? tile_ops(vectors) : *HWY_DYNAMIC_DISPATCH(scored_ops)(scoring, vectors);
}

void mask_to_lanes(const float* const* rows, index_t keys, int vectors, float* bias, std::uint64_t* seen) {
  HWY_DYNAMIC_DISPATCH(spread_mask)(rows, keys, vectors, bias, seen);
}

}  // namespace attn::kernels
#endif
