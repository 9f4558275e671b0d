#include "attn/kernels/spectral/half_spectrum.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/spectral/half_spectrum.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

// With s = 1 for even l and -1 for odd: of each row first the sums (x_c + x_(D-c)) + s (x_(D/2-c) + x_(D/2+c)), c from 0 on (the even
// ones have one more, at D/4), then the differences (x_c - x_(D-c)) - s (x_(D/2-c) - x_(D/2+c)), c from 1 on (the odd ones, at D/4).
void FoldRows(index_t n, index_t width, bool odd, Rows x, Into to) {
  const F d;
  const index_t half = width / 2, quarter = width / 4, sums = quarter + (odd ? 0 : 1);
  const V sign = hn::Set(d, odd ? -1.0f : 1.0f);
  for (index_t i = 0; i < n; ++i) {
    const float* row = x.data + i * x.stride;
    float *sum = to.data + i * to.stride, *difference = sum + sums;
    sum[0] = row[0] + (odd ? -row[half] : row[half]);
    if (!odd) sum[quarter] = row[quarter] + row[half + quarter];
    if (odd) difference[quarter - 1] = row[quarter] - row[half + quarter];
    for (index_t c = 1; c < quarter; c += kLanes) {
      const auto back = [&](index_t from) HWY_ATTR { return hn::Reverse(d, hn::LoadU(d, row + from - (kLanes - 1))); };
      const V a = hn::LoadU(d, row + c), b = back(width - c), e = back(half - c), f = hn::LoadU(d, row + half + c);
      store_first(hn::MulAdd(sign, hn::Add(e, f), hn::Add(a, b)), sum + c, quarter - c);
      store_first(hn::NegMulAdd(sign, hn::Sub(e, f), hn::Sub(a, b)), difference + c - 1, quarter - c);
    }
  }
}

// a0 b0 a1 b1 ...
HWY_INLINE void interleave(V a, V b, V& low, V& high) {
#if HWY_TARGET == HWY_SCALAR
  low = a, high = b;
#elif HWY_TARGET == HWY_AVX3
  const __m512i first = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  low = V{_mm512_permutex2var_ps(a.raw, first, b.raw)};
  high = V{_mm512_permutex2var_ps(a.raw, _mm512_add_epi32(first, _mm512_set1_epi32(8)), b.raw)};
#else
  const F d;
  const V lower = hn::InterleaveLower(d, a, b), upper = hn::InterleaveUpper(d, a, b);
#if HWY_TARGET == HWY_AVX2
  low = hn::ConcatLowerLower(d, upper, lower), high = hn::ConcatUpperUpper(d, upper, lower);
#else
  low = lower, high = upper;
#endif
#endif
}

// row[l] and mirrored[D - l] for 0 <= l < D/2, of parts of even l and, behind them, of odd l.
HWY_INLINE void unfold_row(index_t width, const float* parts, float* row, float* mirrored) {
  const F d;
  const index_t quarter = width / 4;
  for (index_t j = 0; j < quarter; j += kLanes) {
    V low, high;
    interleave(hn::LoadU(d, parts + j), hn::LoadU(d, parts + quarter + j), low, high);
    hn::StoreU(low, d, row + 2 * j);
    hn::StoreU(high, d, row + 2 * j + kLanes);
    float* const end = mirrored + width - 2 * j + 1;
    hn::StoreU(hn::Reverse(d, high), d, end - 2 * kLanes);
    store_first(hn::Reverse(d, low), end - kLanes, j == 0 ? kLanes - 1 : kLanes);  // l = 0 has no mirror image
  }
}

// Of rows k and n - k for first <= k < end. `parts`: room for D floats.
void UnfoldRows(index_t width, index_t first, index_t end, index_t n, Into out, float* parts) {
  const F d;
  const index_t half = width / 2;
  for (index_t k = first; k < end; ++k) {
    float *const row = out.data + k * out.stride, *const mirrored = out.data + (k == 0 ? 0 : n - k) * out.stride;
    float *const own = parts, *const other = parts + half;
    for (index_t j = 0; j < half; j += kLanes) {
      hn::StoreU(hn::LoadU(d, row + j), d, own + j);
      hn::StoreU(hn::LoadU(d, mirrored + j), d, other + j);
    }
    const float middle = 0.5f * (row[half] + mirrored[half]);
    own[0] = other[0] = 0.5f * (row[0] + mirrored[0]);
    unfold_row(width, own, row, mirrored);
    if (mirrored != row) unfold_row(width, other, mirrored, row);
    row[half] = mirrored[half] = middle;
  }
}

index_t VectorLanes() { return kLanes; }

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(FoldRows);
HWY_EXPORT(UnfoldRows);
HWY_EXPORT(VectorLanes);

namespace {

// cos or -sin of 2 pi c l / d.
float part(bool imaginary, index_t c, index_t l, index_t d) {
  const double angle = 2 * std::numbers::pi * static_cast<double>(c * l % d) / static_cast<double>(d);
  return static_cast<float>(imaginary ? -std::sin(angle) : std::cos(angle));
}

}  // namespace

HalfSpectrum::HalfSpectrum(index_t d, WorkspacePlan& plan)
    : d_(d),
      roots_(plan.table<float>(folds(d) ? (5 * d / 4 + 1) * (d / 4) : 2 * d * columns_of(d),
                               [d](std::span<float> to) { folds(d) ? fill_folded(d, to) : fill(d, to); })),
      scratch_(plan.per_worker<float>(folds(d) ? panel * d / 2 : 2 * (d / 2 + 1))) {}

void HalfSpectrum::fill(index_t d, std::span<float> roots) {
  float* to = roots.data();
  for (index_t first = 0; first < columns_of(d); first += most_width) {
    for (index_t c = 0; c < d; ++c) {
      for (const bool imaginary : {false, true}) {
        for (index_t l = first; l < first + width_of(d, first); ++l) {
          const bool shared = imaginary && l == 0 && d % 2 == 0;
          *to++ = shared ? part(false, c, d / 2, d) : part(imaginary, c, l, d);
        }
      }
    }
  }
}

void HalfSpectrum::fill_folded(index_t d, std::span<float> roots) {
  float* to = roots.data();
  const index_t quarter = d / 4;
  const auto put_rows = [&](index_t first, index_t end, auto element) {
    for (index_t c = first; c < end; ++c)
      for (index_t j = 0; j < quarter; ++j) *to++ = element(c, j);
  };
  put_rows(0, quarter + 1, [&](index_t c, index_t j) { return part(false, c, 2 * j, d); });
  // In the place of -sin 0 stands z_(D/2), which is made of the sums.
  put_rows(0, quarter + 1, [&](index_t c, index_t j) { return j > 0 ? 0.0f : part(false, c, d / 2, d); });
  put_rows(1, quarter, [&](index_t c, index_t j) { return part(true, c, 2 * j, d); });
  put_rows(0, quarter, [&](index_t c, index_t j) { return part(false, c, 2 * j + 1, d); });
  put_rows(1, quarter + 1, [&](index_t c, index_t j) { return part(true, c, 2 * j + 1, d); });
}

void HalfSpectrum::run(index_t n, Rows x, index_t first, Into to, const Workspace& workspace, int worker) const {
  const float* roots = workspace.shared(roots_).data();
  const index_t columns = width(first);
  if (!folds(d_)) return gemm(n, 2 * columns, d_, {x.data, x.stride}, {roots + 2 * d_ * first, 2 * columns}, to);
  const index_t quarter = d_ / 4, half = d_ / 2;
  const Into folded{workspace.of(worker, scratch_).data(), half};
  for (const bool odd : {false, true}) {
    const index_t from = std::max(first, odd ? quarter : 0), end = std::min(first + columns, odd ? half : quarter);
    if (from >= end) continue;
    const index_t at = from - (odd ? quarter : 0), sums = odd ? quarter : quarter + 1;
    const float* const cosines = roots + (odd ? (3 * quarter + 1) * quarter : 0) + at;
    const float* const sines = cosines + sums * quarter;
    for (index_t i = 0; i < n; i += panel) {
      const index_t rows = std::min(panel, n - i);
      HWY_DYNAMIC_DISPATCH(FoldRows)(rows, d_, odd, {x.data + i * x.stride, x.stride}, folded);
      float* const block = to.data + i * to.stride + from - first;
      gemm(rows, end - from, sums, {folded.data, half}, {cosines, quarter}, {block, to.stride});
      if (odd)
        gemm(rows, end - from, quarter, {folded.data + quarter, half}, {sines, quarter}, {block + columns, to.stride});
      else
        gemm(rows, end - from, half, {folded.data, half}, {sines, quarter}, {block + columns, to.stride});
    }
  }
}

void HalfSpectrum::unfold(index_t first, index_t end, const View<float, 2>& out, const Workspace& workspace, int worker) const {
  const index_t n = out.extent(0), middle = d_ / 2;
  const bool shares = d_ % 2 == 0, folded = folds(d_);
  float *const own = workspace.of(worker, scratch_).data(), *const other = own + middle + 1;
  if (folded && d_ / 4 % HWY_DYNAMIC_DISPATCH(VectorLanes)() == 0)
    return HWY_DYNAMIC_DISPATCH(UnfoldRows)(d_, first, end, n, {out.row(0), out.stride(0)}, own);
  const auto put = [&](const float* parts, float* row, float* mirrored) {
    row[0] = parts[0];
    for (index_t l = 1; l < columns(); ++l) row[l] = mirrored[d_ - l] = parts[folded ? l / 2 + l % 2 * (d_ / 4) : l];
  };
  for (index_t k = first; k < end; ++k) {
    float *const row = out.row(k), *const mirrored = out.row(k == 0 ? 0 : n - k);
    std::copy_n(row, columns() + (shares ? 1 : 0), own);
    std::copy_n(mirrored, columns() + (shares ? 1 : 0), other);
    if (shares) own[0] = other[0] = 0.5f * (own[0] + other[0]);
    put(own, row, mirrored);
    if (mirrored != row) put(other, mirrored, row);
    if (shares) row[middle] = mirrored[middle] = 0.5f * (own[middle] + other[middle]);
  }
}

}  // namespace attn::kernels
#endif
