#include "attn/kernels/dense/widen.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/dense/widen.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

// Highway 1.0.3 reads an f16 infinity as 65536 where it has no instruction for it.
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
void Widen(DType dtype, const void* from, index_t count, float* to) { widen_row(dtype, from, count, to); }
#else

// Vectors of as many elements as floats, then the rest one by one.
template <class T, class Load>
HWY_INLINE void WidenEach(const void* from, index_t count, float* to, Load load) {
  const F d;
  const auto* x = static_cast<const T*>(from);
  index_t i = 0;
  for (; i + kLanes <= count; i += kLanes) hn::StoreU(load(x + i), d, to + i);
  for (; i < count; ++i) to[i] = to_float(x[i]);
}

HWY_INLINE void WidenBlock(const q8& block, float* to) {
  const F d;
  const hn::Rebind<int32_t, F> di;
  const hn::Rebind<int8_t, F> d8;
  const V scale = hn::Set(d, to_float(block.scale));
  for (index_t i = 0; i < q8::count; i += kLanes)
    hn::StoreU(hn::Mul(scale, hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, block.values + i)))), d, to + i);
}

void Widen(DType dtype, const void* from, index_t count, float* to) {
  switch (dtype) {
    case DType::f32: return widen_row(dtype, from, count, to);
    case DType::bf16:
      return WidenEach<bf16>(from, count, to, [](const bf16* x) HWY_ATTR {
        const hn::Rebind<uint16_t, F> half;
        const hn::Rebind<uint32_t, F> whole;
        return hn::BitCast(F(), hn::ShiftLeft<16>(hn::PromoteTo(whole, hn::LoadU(half, &x->bits))));
      });
    case DType::f16:
      return WidenEach<f16>(from, count, to, [](const f16* x) HWY_ATTR {
        const hn::Rebind<hwy::float16_t, F> half;
        return hn::PromoteTo(F(), hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(x)));
      });
    case DType::q8:
      for (index_t i = 0; i < count; i += q8::count) WidenBlock(static_cast<const q8*>(from)[i / q8::count], to + i);
  }
}
#endif

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace attn::kernels {

HWY_EXPORT(Widen);

void widen(DType dtype, const void* from, index_t count, float* to) {
  ATTN_ASSERT(count % block_of(dtype) == 0);
  HWY_DYNAMIC_DISPATCH(Widen)(dtype, from, count, to);
}

}  // namespace attn::kernels

#endif
