// Vectors of which only the first lanes count; included once per instruction set.
#if defined(ATTN_KERNELS_LANES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_LANES_INL
#undef ATTN_KERNELS_LANES_INL
#else
#define ATTN_KERNELS_LANES_INL
#endif
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "attn/core/problem.hpp"
#include "attn/kernels/machine/exp-inl.hpp"

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

// Bit i is lane i. Through as many bytes as a mask has at most, so that none goes through memory: a load wider than the store
// before it waits until that is in the cache.
template <class D>
HWY_INLINE uint64_t mask_bits(D d, hn::Mask<D> mask) {
  static_assert(hn::MaxLanes(D()) <= 16);
  uint8_t bytes[8] = {};
  hn::StoreMaskBits(d, mask, bytes);
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  return bits & ((uint64_t{1} << hn::Lanes(d)) - 1);
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
