#include "attn/kernels/softmax/tile.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/softmax/tile_scored.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/softmax/tile-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
const TileOps* scored_ops(Scoring scoring, int vectors) {
  return scoring == Scoring::biased ? ops_for<Scoring::biased>(vectors) : ops_for<Scoring::capped>(vectors);
}
}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(scored_ops);

const TileOps& scored_tile_ops(Scoring scoring, int vectors) {
  return scoring == Scoring::plain ? tile_ops(vectors) : *HWY_DYNAMIC_DISPATCH(scored_ops)(scoring, vectors);
}

}  // namespace attn::kernels
#endif
