// Exponentials and softplus of gates in registers; included once per instruction set.
#if defined(ATTN_KERNELS_GATES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_GATES_INL
#undef ATTN_KERNELS_GATES_INL
#else
#define ATTN_KERNELS_GATES_INL
#endif
#include <hwy/contrib/math/math-inl.h>

#include "attn/kernels/dense/activations-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

// e^x for x <= 0: exp2_lanes may be an ulp below 1 at 0, which the powers of a gate add up to a half-life.
HWY_INLINE V exp_of_gate(V x) {
  const F d;
  return hn::IfThenElse(hn::Eq(x, x), hn::Exp(d, x), x);
}

// 1 - e^x for x <= 0, to the last digit near 0.
HWY_INLINE V rest_of_gate(V x) {
  const F d;
  return hn::IfThenElse(hn::Eq(x, x), hn::Neg(hn::Expm1(d, x)), x);
}

// max(x, 0) + ln(1 + u), u = e^-|x|: no digit of a small result is lost. ln(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3, by its series
// (next term 1.4e-8 relative).
HWY_INLINE V softplus_lanes(V x) {
  const F d;
  const V u = exp_lanes(hn::Neg(hn::Abs(x)));
  const V s = hn::Div(u, hn::Add(u, hn::Set(d, 2.0f))), t = hn::Mul(s, s);
  V p = hn::MulAdd(t, hn::Set(d, 2.0f / 13), hn::Set(d, 2.0f / 11));
  p = hn::MulAdd(p, t, hn::Set(d, 2.0f / 9));
  p = hn::MulAdd(p, t, hn::Set(d, 2.0f / 7));
  p = hn::MulAdd(p, t, hn::Set(d, 2.0f / 5));
  p = hn::MulAdd(p, t, hn::Set(d, 2.0f / 3));
  p = hn::MulAdd(p, t, hn::Set(d, 2.0f));
  const V y = hn::MulAdd(p, s, hn::Max(x, hn::Zero(d)));
  return hn::IfThenElse(hn::Eq(x, x), y, x);  // Max drops a NaN
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
