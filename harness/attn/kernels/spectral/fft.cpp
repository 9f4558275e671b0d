#include "attn/kernels/spectral/fft.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/spectral/fft.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>
#include <utility>

#include "attn/kernels/machine/lanes-inl.hpp"

#ifndef ATTN_KERNELS_FFT_PASS
#define ATTN_KERNELS_FFT_PASS
namespace attn::kernels {
// One pass of Stockham's algorithm. After passes of total radix `span`, row k * (n / span) + g holds output k of the transform of
// every (n / span)-th row from g on. A pass joins `radix` of those: it needs no bit reversal and reads and writes whole rows.
struct FftPassOf {
  index_t n, radix, span, columns;
  const float* from;
  float* to;
  const float* twiddles;  // e^(-2 pi i k j / (radix span)) for k < span, 0 < j < radix; radix > 4: the powers of the root
};
}  // namespace attn::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

struct Complex {
  V re, im;
};
HWY_INLINE Complex operator+(Complex a, Complex b) { return {hn::Add(a.re, b.re), hn::Add(a.im, b.im)}; }
HWY_INLINE Complex operator-(Complex a, Complex b) { return {hn::Sub(a.re, b.re), hn::Sub(a.im, b.im)}; }
HWY_INLINE Complex times_minus_i(Complex a) { return {a.im, hn::Neg(a.re)}; }
HWY_INLINE Complex times(Complex a, const float* w) {
  const F d;
  const V c = hn::Set(d, w[0]), s = hn::Set(d, w[1]);
  return {hn::NegMulAdd(a.im, s, hn::Mul(a.re, c)), hn::MulAdd(a.im, c, hn::Mul(a.re, s))};
}
HWY_INLINE Complex add_times(Complex sum, Complex a, const float* w) {
  const F d;
  const V c = hn::Set(d, w[0]), s = hn::Set(d, w[1]);
  return {hn::NegMulAdd(a.im, s, hn::MulAdd(a.re, c, sum.re)), hn::MulAdd(a.im, c, hn::MulAdd(a.re, s, sum.im))};
}

template <int R>
HWY_INLINE void butterfly(Complex (&x)[R]) {
  const F d;
  if constexpr (R == 2) {
    const Complex a = x[0], b = x[1];
    x[0] = a + b, x[1] = a - b;
  } else if constexpr (R == 3) {
    const Complex sum = x[1] + x[2], difference = times_minus_i(x[1] - x[2]);
    const V half = hn::Set(d, 0.5f), root = hn::Set(d, 0.866025404f);
    const Complex middle{hn::NegMulAdd(half, sum.re, x[0].re), hn::NegMulAdd(half, sum.im, x[0].im)};
    const Complex side{hn::Mul(root, difference.re), hn::Mul(root, difference.im)};
    x[0] = x[0] + sum, x[1] = middle + side, x[2] = middle - side;
  } else {
    const Complex a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], e = times_minus_i(x[1] - x[3]);
    x[0] = a + c, x[1] = b + e, x[2] = a - c, x[3] = b - e;
  }
}

HWY_INLINE Complex load(const float* row, index_t columns, index_t at) {
  return {load_first(row + at, columns - at), load_first(row + columns + at, columns - at)};
}
HWY_INLINE void store(Complex x, float* row, index_t columns, index_t at) {
  store_first(x.re, row + at, columns - at);
  store_first(x.im, row + columns + at, columns - at);
}

template <int R>
HWY_INLINE void run_pass(const FftPassOf& a) {
  const index_t row = 2 * a.columns, rest = a.n / R, groups = rest / a.span;
  for (index_t k = 0; k < a.span; ++k) {
    const float* w = a.twiddles + k * 2 * (R - 1);
    for (index_t g = 0; g < groups; ++g) {
      for (index_t at = 0; at < a.columns; at += kLanes) {
        Complex x[R];
        x[0] = load(a.from + (k * groups * R + g) * row, a.columns, at);
        for (int j = 1; j < R; ++j)
          x[j] = times(load(a.from + (k * groups * R + g + j * groups) * row, a.columns, at), w + index_t{2} * (j - 1));
        butterfly<R>(x);
        for (int r = 0; r < R; ++r) store(x[r], a.to + ((k + a.span * r) * groups + g) * row, a.columns, at);
      }
    }
  }
}

HWY_INLINE void run_sum_pass(const FftPassOf& a) {
  const index_t row = 2 * a.columns, radix = a.radix, groups = a.n / radix / a.span;
  const float* roots = a.twiddles;  // of order radix * span: e^(-2 pi i m / (radix span))
  const index_t order = radix * a.span;
  for (index_t k = 0; k < a.span; ++k) {
    for (index_t g = 0; g < groups; ++g) {
      for (index_t r = 0; r < radix; ++r) {
        const index_t step = k + a.span * r;
        for (index_t at = 0; at < a.columns; at += kLanes) {
          Complex sum = load(a.from + (k * groups * radix + g) * row, a.columns, at);
          for (index_t j = 1; j < radix; ++j) {
            sum = add_times(sum, load(a.from + (k * groups * radix + g + j * groups) * row, a.columns, at),
                            roots + 2 * (step * j % order));
          }
          store(sum, a.to + (step * groups + g) * row, a.columns, at);
        }
      }
    }
  }
}

void FftPass(const FftPassOf& a) {
  switch (a.radix) {
    case 2: return run_pass<2>(a);
    case 3: return run_pass<3>(a);
    case 4: return run_pass<4>(a);
    default: return run_sum_pass(a);
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(FftPass);

namespace {

constexpr double two_pi = 6.283185307179586476925;

index_t next_radix(index_t rest) {
  for (const index_t radix : {4, 2, 3}) {
    if (rest % radix == 0) return radix;
  }
  for (index_t p = 5; p * p <= rest; p += 2) {
    if (rest % p == 0) return p;
  }
  return rest;
}

}  // namespace

Fft::Fft(index_t n, WorkspacePlan& plan) : n_(n) {
  index_t floats = 0;
  for (index_t span = 1; span < n;) {
    const index_t radix = next_radix(n / span);
    passes_.push_back({radix, span, floats});
    floats += 2 * span * (radix <= 4 ? radix - 1 : radix);
    span *= radix;
  }
  twiddles_ = plan.table<float>(floats, [passes = passes_](std::span<float> twiddles) { fill(passes, twiddles); });
}

void Fft::fill(std::span<const Pass> passes, std::span<float> twiddles) {
  for (const Pass& pass : passes) {
    const index_t order = pass.span * pass.radix;
    float* to = twiddles.data() + pass.twiddles;
    const auto add_root = [&](index_t power) {
      const double angle = -two_pi * static_cast<double>(power % order) / static_cast<double>(order);
      *to++ = static_cast<float>(std::cos(angle));
      *to++ = static_cast<float>(std::sin(angle));
    };
    if (pass.radix <= 4) {
      for (index_t k = 0; k < pass.span; ++k)
        for (index_t j = 1; j < pass.radix; ++j) add_root(k * j);
    } else {
      for (index_t m = 0; m < order; ++m) add_root(m);
    }
  }
}

float* Fft::run(index_t columns, float* block, float* scratch, const Workspace& workspace) const {
  const float* const twiddles = workspace.shared(twiddles_).data();
  for (const Pass& pass : passes_) {
    HWY_DYNAMIC_DISPATCH(FftPass)
    ({.n = n_,
      .radix = pass.radix,
      .span = pass.span,
      .columns = columns,
      .from = block,
      .to = scratch,
      .twiddles = twiddles + pass.twiddles});
    std::swap(block, scratch);
  }
  return block;
}

}  // namespace attn::kernels
#endif
