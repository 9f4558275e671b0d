#include "attn/kernels/softmax/tile.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/softmax/tile.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/softmax/tile-inl.hpp"

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(ops_for);

const TileOps& tile_ops(int vectors) { return *HWY_DYNAMIC_DISPATCH(ops_for)(vectors); }

}  // namespace attn::kernels
#endif
