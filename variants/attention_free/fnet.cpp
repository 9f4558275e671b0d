#include <algorithm>
#include <cmath>
#include <span>

#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/spectral/fft.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// fnet: no weights at all: the real part of the Fourier transform over positions and channels.
//   out = Re(F_N x F_D), unnormalised, on the N x D of each head
//   Lee-Thorp et al. 2021, arXiv:2105.03824, section 3.2 (there over the whole width; here over each head's)
//   useful flops 2.5 N D (log2 N + log2 D) a head, by FFTs for real input; workspace 256 N bytes a worker and 8 N of roots, some 2.2
//   times as much where N has a prime factor above 61
// Every output depends on every position, so no causal form exists, and padding changes all of it.
//
// Channels by a product with the D x D transform: 2 N D^2 flops at the speed of a product beat FFTs of D <= 256 points. Of their
// spectrum z_0 .. z_(D-1) the second half mirrors the first, and z_0 and z_(D/2) are real and share a column: D/2 complex columns.
// Those are transformed over positions by an FFT with columns in the lanes. out_(N-k),(D-l) = out_k,l gives the other half.
// FFTW 3.3.10 (GPL, so not linked; plans by FFTW_MEASURE) takes 1.27 times as long at N=4096, D=64, 8 heads; 1.03 times without
// picking the real part out of its half spectrum.
struct Fnet {
  static VariantInfo info() {
    return {.title = "FNet, Fourier mixing",
            .formula = "out = Re(F_N x F_D)",
            .paper = "Lee-Thorp et al. 2021, arXiv:2105.03824, section 3.2",
            .cost_in_n = "N log N D",
            .exactness = Exactness::different,
            .causality = Causality::never,
            .reads = Reads::x,
            .cross = false,
            .row_wise = false,
            .time_exponent = 1,
            .acausal = "a Fourier transform mixes all positions"};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    const auto elements = static_cast<double>(p.batch * p.heads * p.q_len * p.head_dim);
    const double levels = std::log2(static_cast<double>(p.q_len)) + std::log2(static_cast<double>(p.head_dim));
    return {.flops = 2.5 * elements * levels, .bytes = q_bytes(p) + out_bytes(p)};
  }

  template <class T>
  static Tensor<T> definition(const Problem&, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return real_dft2(in.x());
  }

  Fnet(const Problem& p, const NoOptions&, WorkspacePlan& workspace)
      : p_(p),
        columns_((p.head_dim + 1) / 2),
        fft_(p.q_len, workspace),
        spectrum_(workspace.table<float>(2 * p.head_dim * columns_,
                                         [d = p.head_dim, columns = columns_](std::span<float> to) { fill(d, columns, to); })),
        blocks_(workspace.per_worker<float>(2 * fft_.rows() * 2 * std::min(group, columns_))) {}

  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const index_t n = p_.q_len, d = p_.head_dim, groups = (columns_ + group - 1) / group;
    parallel_tasks(p_.batch * p_.heads * groups, [&](index_t task, int worker) {
      const index_t first = task % groups * group, width = std::min(group, columns_ - first);
      const index_t head = task / groups % p_.heads, batch = task / groups / p_.heads;
      const auto x = a.x()[batch][head];
      float* block = workspace.of(worker, blocks_).data();
      kernels::gemm(n, 2 * width, d, {x.data_handle(), x.stride(0)},
                    {workspace.shared(spectrum_).data() + 2 * d * first, 2 * width}, {block, 2 * width});
      write(fft_.run(width, block, block + 2 * fft_.rows() * width, workspace), first, width, a.out[batch][head]);
    });
  }

 private:
  static constexpr index_t group = 16;  // complex columns: at N = 4096 two blocks of them, 1 MB, stay in L2

  static void fill(index_t d, index_t columns, std::span<float> spectrum) {
    float* to = spectrum.data();
    for (index_t first = 0; first < columns; first += group) {
      const index_t width = std::min(group, columns - first);
      for (index_t c = 0; c < d; ++c) {
        for (const bool imaginary : {false, true}) {
          for (index_t l = first; l < first + width; ++l) {
            const bool shared = imaginary && l == 0 && d % 2 == 0;
            const index_t frequency = shared ? d / 2 : l;
            const double angle = 2 * 3.14159265358979323846 * static_cast<double>(c * frequency % d) / static_cast<double>(d);
            *to++ = static_cast<float>(imaginary && !shared ? -std::sin(angle) : std::cos(angle));
          }
        }
      }
    }
  }

  void write(const float* transformed, index_t first, index_t width, const View<float, 2>& out) const {
    const index_t n = p_.q_len, d = p_.head_dim;
    for (index_t k = 0; k < n; ++k) {
      const index_t mirror = k == 0 ? 0 : n - k;
      const float *z = transformed + 2 * k * width, *other = transformed + 2 * mirror * width;
      float *row = out.row(k), *mirrored = out.row(mirror) + d;
      for (index_t l = std::max<index_t>(first, 1); l < first + width; ++l) row[l] = mirrored[-l] = z[l - first];
      if (first > 0) continue;
      const bool shared = d % 2 == 0;  // column 0 holds z_0 + i z_(D/2)
      row[0] = shared ? 0.5f * (z[0] + other[0]) : z[0];
      if (shared) row[d / 2] = 0.5f * (z[width] + other[width]);
    }
  }

  Problem p_;
  index_t columns_;
  kernels::Fft fft_;
  Booking<float> spectrum_;  // [groups][D][2 width]: real, then imaginary parts of e^(-2 pi i c l / D)
  Booking<float> blocks_;
};
ATTN_VARIANT(fnet, Fnet)

}  // namespace attn
