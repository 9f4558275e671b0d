// tanh as softcaps need it; included once per instruction set.
#if defined(ATTN_KERNELS_TANH_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_TANH_INL
#undef ATTN_KERNELS_TANH_INL
#else
#define ATTN_KERNELS_TANH_INL
#endif
#include <hwy/highway.h>

#include "attn/kernels/machine/exp-inl.hpp"
#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// tanh(x) / x below |x| = 1/2 as a polynomial in x^2, from the constant term on (Chebyshev, 1.4e-8 relative).
inline constexpr float tanh_near[] = {0.99999999f, -0.33333068f, 0.13324751f, -0.05298424f, 0.01713134f};
inline constexpr float tanh_near_squared = 0.25f;  // x^2 up to which it holds

// tanh(x) for |x| >= 1/2.
HWY_INLINE V tanh_beyond(V x) {
  const F d;
  constexpr float twice_log2_e = 2.88539008f;
  const V e = exp2_lanes(hn::Mul(hn::Abs(x), hn::Set(d, twice_log2_e)));
  return hn::CopySign(hn::Sub(hn::Set(d, 1.0f), hn::Div(hn::Set(d, 2.0f), hn::Add(e, hn::Set(d, 1.0f)))), x);
}

// 1.2e-7 relative; NaN stays NaN.
HWY_INLINE V tanh_lanes(V x) {
  const F d;
  const V square = hn::Mul(x, x);
  V p = hn::Set(d, tanh_near[4]);
  for (int i = 3; i >= 0; --i) p = hn::MulAdd(p, square, hn::Set(d, tanh_near[i]));
  return hn::IfThenElse(hn::Gt(square, hn::Set(d, tanh_near_squared)), tanh_beyond(x), hn::Mul(p, x));
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
