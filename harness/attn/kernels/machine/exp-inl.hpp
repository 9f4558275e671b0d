// exp2 in registers, for x <= 128 and any x below; included once per instruction set.
#if defined(ATTN_KERNELS_EXP_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_EXP_INL
#undef ATTN_KERNELS_EXP_INL
#else
#define ATTN_KERNELS_EXP_INL
#endif
#include <hwy/highway.h>
#if HWY_TARGET == HWY_AVX3
#include <immintrin.h>
#endif

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::ScalableTag<float>;
using V = hn::Vec<F>;

// Horner, minimax in relative error (Remez): 7.5e-8 on an interval of length 1.
HWY_INLINE V horner5(V r, float c5, float c4, float c3, float c2, float c1, float c0) {
  const F d;
  V p = hn::MulAdd(hn::Set(d, c5), r, hn::Set(d, c4));
  p = hn::MulAdd(p, r, hn::Set(d, c3));
  p = hn::MulAdd(p, r, hn::Set(d, c2));
  p = hn::MulAdd(p, r, hn::Set(d, c1));
  return hn::MulAdd(p, r, hn::Set(d, c0));
}

HWY_INLINE V exp2_lanes(V x) {
#if HWY_TARGET == HWY_AVX3
  // 7 operations, all on both vector ports of a Golden Cove core; scalef multiplies by 2^floor(x).
  const V r{_mm512_reduce_ps(x.raw, _MM_FROUND_TO_NEG_INF)};
  const V p = horner5(r, 1.87757669e-3f, 8.98933969e-3f, 5.58263175e-2f, 2.40153611e-1f, 6.93153083e-1f, 9.9999994e-1f);
  return V{_mm512_scalef_ps(p.raw, x.raw)};
#else
  // The magic number rounds to nearest and leaves n + 127 in the low bits, which shifted are the bits of 2^n:
  // 0 for n = -127 and infinity for n = 128. The product, unlike an integer add, keeps every NaN a NaN.
  const F d;
  const hn::RebindToUnsigned<F> du;
  const V magic = hn::Set(d, 12582912.0f + 127.0f);
  const V low = hn::Set(d, -127.0f), high = hn::Set(d, 128.0f);
  // In this order a NaN stays.
#if HWY_TARGET == HWY_AVX2
  x = hn::Min(high, hn::Max(low, x));
#elif HWY_TARGET == HWY_SCALAR
  float least = low.raw;
#if defined(__SSE2__)
  asm("" : "+x"(least));  // else g++ 12 makes a branch: where it turns at random, attention takes a third longer
#endif
  x.raw = least > x.raw ? least : x.raw;
  x.raw = high.raw < x.raw ? high.raw : x.raw;
#else
  x = hn::IfThenElse(hn::Lt(x, low), low, x);
  x = hn::IfThenElse(hn::Gt(x, high), high, x);
#endif
  const V z = hn::Add(x, magic);
  const V r = hn::Sub(x, hn::Sub(z, magic));
  const V p = horner5(r, 1.32764725e-3f, 9.67554096e-3f, 5.55071309e-2f, 2.40221202e-1f, 6.93146944e-1f, 1.00000012f);
  return hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, z))));
#endif
}

// Exact for whole n; zero from -127 down, infinity from 128 up.
HWY_INLINE V power_of_two(V n) {
  const F d;
#if HWY_TARGET == HWY_AVX3
  return V{_mm512_scalef_ps(hn::Set(d, 1.0f).raw, n.raw)};
#else
  const hn::RebindToUnsigned<F> du;
  const V biased = hn::Add(hn::Min(hn::Max(n, hn::Set(d, -127.0f)), hn::Set(d, 128.0f)), hn::Set(d, 12582912.0f + 127.0f));
  return hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(du, biased)));
#endif
}

// The whole number n with 2^n <= x < 2^(n+1), of a normal x > 0.
HWY_INLINE V whole_log2(V x) {
  const F d;
  const hn::RebindToSigned<F> di;
  return hn::ConvertTo(d, hn::Sub(hn::ShiftRight<23>(hn::BitCast(di, x)), hn::Set(di, 127)));
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
