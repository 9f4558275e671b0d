#include "attn/kernels/spectral/causal_convolution.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/spectral/causal_convolution.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>

#include "attn/core/round.hpp"
#include "attn/kernels/dense/band.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

struct Spectrum {
  V re, im;
};
HWY_INLINE Spectrum spectrum_at(const float* row, index_t columns, index_t at) {
  return {load_first(row + at, columns - at), load_first(row + columns + at, columns - at)};
}
HWY_INLINE void put_spectrum(V re, V im, float* row, index_t columns, index_t at) {
  store_first(re, row + at, columns - at);
  store_first(im, row + columns + at, columns - at);
}

// x + conj(y) z, complex.
HWY_INLINE Spectrum plus_conjugate_times(Spectrum x, Spectrum y, Spectrum z) {
  return {hn::MulAdd(y.re, z.re, hn::MulAdd(y.im, z.im, x.re)), hn::MulAdd(y.re, z.im, hn::NegMulAdd(y.im, z.re, x.im))};
}
HWY_INLINE Spectrum product(Spectrum y, Spectrum z) {
  return {hn::NegMulAdd(y.im, z.im, hn::Mul(y.re, z.re)), hn::MulAdd(y.im, z.re, hn::Mul(y.re, z.im))};
}

// A column holds two real channels, x = a + i b: of its transform X that of a is (X_k + conj X_(n-k)) / 2, that of b the same difference / i.
// Writes P = scale (A + B) / 2 and Q = scale (A - B) / 2.
void SplitSpectrum(index_t n, index_t columns, const float* x, float scale, float* p, float* q) {
  const F d;
  const V quarter = hn::Set(d, scale / 4);
  for (index_t k = 0; k < n; ++k) {
    const float *own = x + 2 * k * columns, *other = x + 2 * ((n - k) % n) * columns;
    for (index_t at = 0; at < columns; at += kLanes) {
      const Spectrum s = spectrum_at(own, columns, at), t = spectrum_at(other, columns, at);
      const V a_re = hn::Add(s.re, t.re), a_im = hn::Sub(s.im, t.im);
      const V b_re = hn::Add(s.im, t.im), b_im = hn::Sub(t.re, s.re);
      put_spectrum(hn::Mul(quarter, hn::Add(a_re, b_re)), hn::Mul(quarter, hn::Add(a_im, b_im)), p + 2 * k * columns, columns, at);
      put_spectrum(hn::Mul(quarter, hn::Sub(a_re, b_re)), hn::Mul(quarter, hn::Sub(a_im, b_im)), q + 2 * k * columns, columns, at);
    }
  }
}

// Each channel's spectrum times its filter's, of columns as above: Y_k = X_k P_k + conj X_(n-k) Q_k. In place, real and imaginary parts exchanged,
// so that one more transform is the way back.
void MultiplySpectra(index_t n, index_t columns, float* x, const float* p, const float* q) {
  for (index_t k = 0; k <= n / 2; ++k) {
    const index_t j = (n - k) % n;
    float *own = x + 2 * k * columns, *other = x + 2 * j * columns;
    for (index_t at = 0; at < columns; at += kLanes) {
      const auto of = [&](const float* table, index_t row) HWY_ATTR { return spectrum_at(table + 2 * row * columns, columns, at); };
      const Spectrum s = spectrum_at(own, columns, at), t = spectrum_at(other, columns, at);
      const Spectrum y = plus_conjugate_times(product(s, of(p, k)), t, of(q, k));
      const Spectrum z = plus_conjugate_times(product(t, of(p, j)), s, of(q, j));
      put_spectrum(y.im, y.re, own, columns, at);
      put_spectrum(z.im, z.re, other, columns, at);
    }
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(SplitSpectrum);
HWY_EXPORT(MultiplySpectra);

namespace {

constexpr index_t near_rows = 128;      // summed directly: a row of them takes as long as its part in a transform of twice as many
constexpr index_t near_together = 512;  // rows of a task, a multiple
constexpr index_t group = 32;           // channels that are transformed at once: 16 complex columns

}  // namespace

CausalConvolution::CausalConvolution(index_t n, index_t channels, index_t taps, WorkspacePlan& plan)
    : n_(n), channels_(channels), taps_(std::min(taps, n)) {
  for (index_t size = near_rows; size < n && taps_ > 1; size *= 2) {
    const bool top = size >= taps_ - 1;
    levels_.push_back({size, top, std::ssize(transforms_)});
    transforms_.emplace_back(2 * size, plan);
    if (top) break;
  }
  const index_t floats = levels_.empty() ? 0 : 2 * levels_.back().size * round_up(std::min(group, channels), 2);
  blocks_ = plan.per_worker<float>(4 * floats);
}

index_t CausalConvolution::near_tasks() const { return ceil_div(n_, near_together); }

void CausalConvolution::near(index_t task, Rows filter, Rows x, Into y) const {
  const index_t taps = std::min(taps_, near_rows), end = std::min(n_, (task + 1) * near_together);
  for (index_t first = task * near_together; first < end; first += near_rows) {
    const index_t rows = std::min(near_rows, end - first);
    // Weight u of the window is tap taps - 1 - u.
    depthwise(rows, channels_, {filter.data + (taps - 1) * filter.stride, -filter.stride}, taps, 0, taps - 1,
              {{x.data + first * x.stride, x.stride}, rows}, false, {y.data + first * y.stride, y.stride});
  }
}

index_t CausalConvolution::far_tasks() const { return levels_.empty() ? 0 : ceil_div(channels_, group); }

// Rows of `channels` numbers into the first rows of a block: half of them as real parts, the others as imaginary ones.
void CausalConvolution::load(Rows from, index_t rows, index_t channels, index_t columns, index_t size, float* block) const {
  copy(rows, channels, from, {block, 2 * columns});
  if (channels < 2 * columns) {
    for (index_t t = 0; t < rows; ++t) block[2 * t * columns + channels] = 0;
  }
  std::fill_n(block + 2 * rows * columns, 2 * (size - rows) * columns, 0.0f);
}

void CausalConvolution::far(index_t task, index_t head, Rows filter, const View<const float, 4>& x, const View<float, 4>& y,
                            const Workspace& workspace, int worker) const {
  const index_t first = task * group, channels = std::min(group, channels_ - first), columns = ceil_div(channels, 2);
  for (const Level& level : levels_) {
    const index_t size = 2 * level.size, floats = 2 * size * columns;
    const Fft& transform = transforms_[static_cast<std::size_t>(level.at)];
    float* const block = workspace.of(worker, blocks_).data();
    float *const scratch = block + floats, *const p = scratch + floats, *const q = p + floats;
    load({filter.data + first, filter.stride}, std::min(taps_, size), channels, columns, size, block);
    const float* const spectrum = transform.run(columns, block, scratch, workspace);
    HWY_DYNAMIC_DISPATCH(SplitSpectrum)(size, columns, spectrum, 1 / static_cast<float>(size), p, q);
    for (index_t b = 0; b < x.extent(0); ++b) {
      const auto from = x[b][head];
      const auto to = y[b][head];
      for (index_t end = level.size; end < n_; end += level.every ? level.size : size) {
        load({from.row(end - level.size) + first, from.stride(0)}, level.size, channels, columns, size, block);
        float* const transformed = transform.run(columns, block, scratch, workspace);
        HWY_DYNAMIC_DISPATCH(MultiplySpectra)(size, columns, transformed, p, q);
        const float* const back = transform.run(columns, transformed, transformed == block ? scratch : block, workspace);
        const index_t rows = std::min(level.size, n_ - end);
        const float* const late = back + 2 * level.size * columns;  // imaginary parts are the real ones
        add(rows, columns, {late + columns, 2 * columns}, {to.row(end) + first, to.stride(0)});
        add(rows, channels - columns, {late, 2 * columns}, {to.row(end) + first + columns, to.stride(0)});
      }
    }
  }
}

}  // namespace attn::kernels
#endif
