// sigmoid, tanh and erf in registers; included once per instruction set.
#if defined(ATTN_KERNELS_ACTIVATIONS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_ACTIVATIONS_INL
#undef ATTN_KERNELS_ACTIVATIONS_INL
#else
#define ATTN_KERNELS_ACTIVATIONS_INL
#endif
#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

HWY_INLINE V exp_lanes(V x) { return exp2_lanes(hn::Mul(x, hn::Set(F(), 1.44269504f))); }

// e^-x is held below the largest float: 1 / (1 + inf) is 0 as well, but where exp2 stops at 2^128.
HWY_INLINE V sigmoid_lanes(V x) {
  const F d;
  const V one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, exp_lanes(hn::Neg(x))));
}

// 2 sigmoid(2x) - 1 loses digits near 0: there the series, to x^9 (next term 4e-9 relative at 0.3).
HWY_INLINE V tanh_lanes(V x) {
  const F d;
  const V far = hn::MulAdd(hn::Set(d, 2.0f), sigmoid_lanes(hn::Add(x, x)), hn::Set(d, -1.0f));
  const V s = hn::Mul(x, x);
  V p = hn::MulAdd(s, hn::Set(d, 2.18694885e-2f), hn::Set(d, -5.39682540e-2f));
  p = hn::MulAdd(p, s, hn::Set(d, 1.33333333e-1f));
  p = hn::MulAdd(p, s, hn::Set(d, -3.33333333e-1f));
  const V near = hn::MulAdd(hn::Mul(p, s), x, x);
  return hn::IfThenElse(hn::Lt(hn::Abs(x), hn::Set(d, 0.3f)), near, far);
}

// After N. Juffa's erff: within 1.2e-7.
HWY_INLINE V erf_lanes(V x) {
  const F d;
  const V t = hn::Min(hn::Abs(x), hn::Set(d, 4.0f)), s = hn::Mul(x, x);  // erf(4) is 1 in float
  const V t2 = hn::Mul(t, t);
  V far = hn::MulAdd(hn::Set(d, -1.72853470e-5f), t, hn::Set(d, 3.83197126e-4f));
  far = hn::MulAdd(far, t2, hn::MulAdd(hn::Set(d, -3.88396438e-3f), t, hn::Set(d, 2.42546219e-2f)));
  far = hn::MulAdd(far, t, hn::Set(d, -1.06777877e-1f));
  far = hn::MulAdd(far, t, hn::Set(d, -6.34846687e-1f));
  far = hn::MulAdd(far, t, hn::Set(d, -1.28717512e-1f));
  far = hn::MulAdd(far, t, hn::Neg(t));
  far = hn::CopySign(hn::Sub(hn::Set(d, 1.0f), exp_lanes(far)), x);
  V near = hn::MulAdd(hn::Set(d, -5.96761703e-4f), s, hn::Set(d, 4.99119423e-3f));
  near = hn::MulAdd(near, s, hn::Set(d, -2.67681349e-2f));
  near = hn::MulAdd(near, s, hn::Set(d, 1.12819925e-1f));
  near = hn::MulAdd(near, s, hn::Set(d, -3.76125336e-1f));
  near = hn::MulAdd(near, s, hn::Set(d, 1.28379166e-1f));
  near = hn::MulAdd(near, x, x);
  const V y = hn::IfThenElse(hn::Gt(t, hn::Set(d, 0.927734375f)), far, near);
  return hn::IfThenElse(hn::Eq(x, x), y, x);  // Min drops a NaN
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
