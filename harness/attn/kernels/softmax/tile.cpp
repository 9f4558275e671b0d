#include "attn/kernels/softmax/tile.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/softmax/tile.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/softmax/tile-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
const TileOps* plain_ops(int vectors) { return ops_for<Scoring::plain>(vectors); }
}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(plain_ops);

const TileOps& tile_ops(int vectors) { return *HWY_DYNAMIC_DISPATCH(plain_ops)(vectors); }

}  // namespace attn::kernels
#endif
