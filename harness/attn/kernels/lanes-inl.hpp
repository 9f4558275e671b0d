// Vectors of which only the first lanes count; included once per instruction set.
#if defined(ATTN_KERNELS_LANES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_LANES_INL
#undef ATTN_KERNELS_LANES_INL
#else
#define ATTN_KERNELS_LANES_INL
#endif
#include <hwy/highway.h>

#include <algorithm>

#include "attn/core/problem.hpp"
#include "attn/kernels/exp-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr index_t kLanes = static_cast<index_t>(hn::MaxLanes(F()));

// The lanes from `count` on are zero, and not read.
HWY_INLINE V load_first(const float* from, index_t count) {
  const F d;
  if (count >= kLanes) return hn::LoadU(d, from);
#if HWY_TARGET <= HWY_AVX2
  return hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(count)), d, from);
#else
  HWY_ALIGN float copy[kLanes] = {};
  std::copy_n(from, count, copy);
  return hn::Load(d, copy);
#endif
}

HWY_INLINE void store_first(V v, float* to, index_t count) {
  const F d;
  if (count >= kLanes) return hn::StoreU(v, d, to);
#if HWY_TARGET <= HWY_AVX2
  hn::BlendedStore(v, hn::FirstN(d, static_cast<size_t>(count)), d, to);
#else
  HWY_ALIGN float copy[kLanes];
  hn::Store(v, d, copy);
  std::copy_n(copy, count, to);
#endif
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
