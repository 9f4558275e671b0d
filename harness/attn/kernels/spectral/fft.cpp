#include "attn/kernels/spectral/fft.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/spectral/fft.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <complex>
#include <limits>
#include <numbers>
#include <utility>

#include "attn/kernels/machine/lanes-inl.hpp"

#define ATTN_EACH(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); ++i)

#ifndef ATTN_KERNELS_FFT_PASS
#define ATTN_KERNELS_FFT_PASS
namespace attn::kernels {
// One pass of Stockham's algorithm. After passes of total radix `span`, row k * (n / span) + g holds output k of the transform of
// every (n / span)-th row from g on. A pass joins `radix` of those: it needs no bit reversal and reads and writes whole rows.
struct FftPassOf {
  index_t n, radix, span, columns;
  const float* from;
  float* to;
  const float* twiddles;  // e^(-2 pi i k j / (radix span)) for k < span, 0 < j < radix; of radices summed, the powers of the root
};
// What is done to each row of a block by itself: multiplied by its factor. Real and imaginary parts change places before and after
// where that is asked for: a transform between two such changes is the inverse one, times its length.
struct FftTurnOf {
  index_t rows, columns;
  float* block;
  const float* factors;
  bool swap_before, swap_after;
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
HWY_INLINE Complex plus_i(Complex a, Complex b) { return {hn::Sub(a.re, b.im), hn::Add(a.im, b.re)}; }
HWY_INLINE Complex plus_minus_i(Complex a, Complex b) { return {hn::Add(a.re, b.im), hn::Sub(a.im, b.re)}; }
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
  } else if constexpr (R == 4) {
    const Complex a = x[0] + x[2], b = x[0] - x[2], c = x[1] + x[3], e = x[1] - x[3];
    x[0] = a + c, x[1] = plus_minus_i(b, e), x[2] = a - c, x[3] = plus_i(b, e);
  } else {
    static_assert(R == 8);
    Complex even[4], odd[4];
    for (int j = 0; j < 4; ++j) even[j] = x[j] + x[j + 4], odd[j] = x[j] - x[j + 4];
    const V root = hn::Set(d, 0.707106781f);
    const auto eighth = [&](Complex a) HWY_ATTR {  // times (1 - i) / sqrt(2)
      return Complex{hn::Mul(root, hn::Add(a.re, a.im)), hn::Mul(root, hn::Sub(a.im, a.re))};
    };
    odd[1] = eighth(odd[1]), odd[2] = times_minus_i(odd[2]), odd[3] = times_minus_i(eighth(odd[3]));
    butterfly<4>(even), butterfly<4>(odd);
    for (int j = 0; j < 4; ++j) x[2 * j] = even[j], x[2 * j + 1] = odd[j];
  }
}

// kWhole: columns are whole vectors.
template <bool kWhole = false>
HWY_INLINE Complex load(const float* row, index_t columns, index_t at) {
  if (kWhole) return {hn::LoadU(F(), row + at), hn::LoadU(F(), row + columns + at)};
  return {load_first(row + at, columns - at), load_first(row + columns + at, columns - at)};
}
template <bool kWhole = false>
HWY_INLINE void store(Complex x, float* row, index_t columns, index_t at) {
  if (kWhole) {
    hn::StoreU(x.re, F(), row + at);
    hn::StoreU(x.im, F(), row + columns + at);
    return;
  }
  store_first(x.re, row + at, columns - at);
  store_first(x.im, row + columns + at, columns - at);
}

// The rows of one k. kTurn: their twiddles are not all 1.
template <int R, bool kTurn, bool kWhole>
HWY_INLINE void run_rows(const FftPassOf& a, index_t k) {
  const index_t row = 2 * a.columns, rest = a.n / R, groups = rest / a.span;
  const index_t apart = groups * row, apart_to = a.span * groups * row;
  const float* w = a.twiddles + k * 2 * (R - 1);
  const float* from = a.from + k * groups * R * row;
  float* to = a.to + k * groups * row;
  for (index_t g = 0; g < groups; ++g, from += row, to += row) {
    for (index_t at = 0; at < a.columns; at += kLanes) {
      Complex x[R];
      ATTN_EACH(j, R) {
        x[j] = load<kWhole>(from + j * apart, a.columns, at);
        if (kTurn && j > 0) x[j] = times(x[j], w + index_t{2} * (j - 1));
      }
      butterfly<R>(x);
      ATTN_EACH(r, R) store<kWhole>(x[r], to + r * apart_to, a.columns, at);
    }
  }
}

template <int R, bool kWhole>
HWY_INLINE void run_each(const FftPassOf& a) {
  run_rows<R, false, kWhole>(a, 0);
  for (index_t k = 1; k < a.span; ++k) run_rows<R, true, kWhole>(a, k);
}

template <int R>
HWY_INLINE void run_pass(const FftPassOf& a) {
  a.columns % kLanes == 0 ? run_each<R, true>(a) : run_each<R, false>(a);
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

void FftTurn(const FftTurnOf& a) {
  for (index_t i = 0; i < a.rows; ++i) {
    float* row = a.block + i * 2 * a.columns;
    for (index_t at = 0; at < a.columns; at += kLanes) {
      Complex x = load(row, a.columns, at);
      if (a.swap_before) x = {x.im, x.re};
      x = times(x, a.factors + 2 * i);
      if (a.swap_after) x = {x.im, x.re};
      store(x, row, a.columns, at);
    }
  }
}

void FftPass(const FftPassOf& a) {
  switch (a.radix) {
    case 2: return run_pass<2>(a);
    case 3: return run_pass<3>(a);
    case 4: return run_pass<4>(a);
    case 8: return run_pass<8>(a);
    default: return run_sum_pass(a);
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(FftPass);
HWY_EXPORT(FftTurn);

namespace {

using Number = std::complex<double>;

// A prime factor from which on sums of its terms take longer than a convolution (Emerald Rapids, 16 columns).
constexpr index_t largest_sum = 61;

// Radices whose butterflies are written out, so that their twiddles are stored for each row.
bool is_short(index_t radix) { return radix <= 4 || radix == 8; }

// As few passes as there can be: each reads and writes all rows.
index_t next_radix(index_t rest) {
  if (rest % 8 == 0 && (rest % 16 != 0 || rest % 32 == 0)) return 8;  // 16 is 4 times 4
  for (const index_t radix : {4, 2, 3}) {
    if (rest % radix == 0) return radix;
  }
  for (index_t p = 5; p * p <= rest; p += 2) {
    if (rest % p == 0) return p;
  }
  return rest;
}

index_t largest_radix(index_t n) {
  index_t largest = 1;
  for (index_t rest = n; rest > 1; rest /= next_radix(rest)) largest = std::max(largest, next_radix(rest));
  return largest;
}

// The product of twos and threes, at least `least`, whose passes read and write the fewest rows.
index_t convolution_rows(index_t least) {
  index_t best = 0, cost = std::numeric_limits<index_t>::max();
  for (index_t threes = 1; threes < 3 * least; threes *= 3) {
    index_t rows = threes;
    while (rows < least) rows *= 2;
    index_t passes = 0;
    for (index_t rest = rows; rest > 1; rest /= next_radix(rest)) ++passes;
    if (rows * passes < cost) cost = rows * passes, best = rows;
  }
  return best;
}

Number root(index_t power, index_t order) {
  return std::polar(1.0, -2 * std::numbers::pi * static_cast<double>(power % order) / static_cast<double>(order));
}

// e^(-pi i t^2 / n)
Number chirp(index_t t, index_t n) { return root(t * t, 2 * n); }

void put(Number x, float*& to) {
  *to++ = static_cast<float>(x.real());
  *to++ = static_cast<float>(x.imag());
}

// y = the transform of x[0], x[stride] .. x[(n - 1) stride] in doubles, for tables; roots: of order n stride.
void transform(const Number* x, index_t stride, std::span<const Number> roots, std::span<Number> y, std::span<Number> scratch) {
  const auto n = static_cast<index_t>(y.size());
  if (n == 1) return void(y[0] = *x);
  const index_t radix = next_radix(n), part = n / radix;
  const auto piece = [&](std::span<Number> all, index_t j) {
    return all.subspan(static_cast<std::size_t>(j * part), static_cast<std::size_t>(part));
  };
  for (index_t j = 0; j < radix; ++j) transform(x + j * stride, stride * radix, roots, piece(scratch, j), piece(y, j));
  for (index_t k = 0; k < n; ++k) {
    Number sum = 0;
    for (index_t j = 0; j < radix; ++j)
      sum += roots[static_cast<std::size_t>(j * k % n * stride)] * scratch[static_cast<std::size_t>(j * part + k % part)];
    y[static_cast<std::size_t>(k)] = sum;
  }
}

// As k t = (k^2 + t^2 - (k - t)^2) / 2, the transform of x is chirp_k times the convolution of chirp_t x_t with the chirp's conjugate.
void fill_filter(index_t n, index_t rows, std::span<float> filter) {
  std::vector<Number> x(static_cast<std::size_t>(rows)), y(x.size()), scratch(x.size()), roots(x.size());
  for (index_t t = 0; t < rows; ++t) roots[static_cast<std::size_t>(t)] = root(t, rows);
  for (index_t t = 0; t < n; ++t)
    x[static_cast<std::size_t>(t)] = x[static_cast<std::size_t>((rows - t) % rows)] =
        std::conj(chirp(t, n)) / static_cast<double>(rows);
  transform(x.data(), 1, roots, y, scratch);
  float* to = filter.data();
  for (const Number& value : y) put(value, to);
}

}  // namespace

Fft::Fft(index_t n, WorkspacePlan& plan) : n_(n), rows_(largest_radix(n) > largest_sum ? convolution_rows(2 * n - 1) : n) {
  index_t floats = 0;
  for (index_t span = 1; span < rows_;) {
    const index_t radix = next_radix(rows_ / span);
    passes_.push_back({radix, span, floats});
    floats += 2 * span * (is_short(radix) ? radix - 1 : radix);
    span *= radix;
  }
  twiddles_ = plan.table<float>(floats, [passes = passes_](std::span<float> twiddles) { fill(passes, twiddles); });
  if (rows_ == n) return;
  chirp_ = plan.table<float>(2 * n, [n](std::span<float> to) {
    float* next = to.data();
    for (index_t t = 0; t < n; ++t) put(chirp(t, n), next);
  });
  filter_ = plan.table<float>(2 * rows_, [n, rows = rows_](std::span<float> to) { fill_filter(n, rows, to); });
}

void Fft::fill(std::span<const Pass> passes, std::span<float> twiddles) {
  for (const Pass& pass : passes) {
    const index_t order = pass.span * pass.radix;
    float* to = twiddles.data() + pass.twiddles;
    if (is_short(pass.radix)) {
      for (index_t k = 0; k < pass.span; ++k)
        for (index_t j = 1; j < pass.radix; ++j) put(root(k * j, order), to);
    } else {
      for (index_t m = 0; m < order; ++m) put(root(m, order), to);
    }
  }
}

void Fft::run_passes(index_t columns, float*& block, float*& scratch, const Workspace& workspace) const {
  const float* const twiddles = workspace.shared(twiddles_).data();
  for (const Pass& pass : passes_) {
    HWY_DYNAMIC_DISPATCH(FftPass)
    ({.n = rows_,
      .radix = pass.radix,
      .span = pass.span,
      .columns = columns,
      .from = block,
      .to = scratch,
      .twiddles = twiddles + pass.twiddles});
    std::swap(block, scratch);
  }
}

float* Fft::run(index_t columns, float* block, float* scratch, const Workspace& workspace) const {
  if (rows_ == n_) {
    run_passes(columns, block, scratch, workspace);
    return block;
  }
  const float *chirp = workspace.shared(chirp_).data(), *filter = workspace.shared(filter_).data();
  const auto turn = [&](index_t rows, const float* factors, bool swap_before, bool swap_after) {
    HWY_DYNAMIC_DISPATCH(FftTurn)({rows, columns, block, factors, swap_before, swap_after});
  };
  turn(n_, chirp, false, false);
  std::fill_n(block + n_ * 2 * columns, (rows_ - n_) * 2 * columns, 0.0f);
  run_passes(columns, block, scratch, workspace);
  turn(rows_, filter, false, true);
  run_passes(columns, block, scratch, workspace);
  turn(n_, chirp, true, false);
  return block;
}

}  // namespace attn::kernels
#endif
