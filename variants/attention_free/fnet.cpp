#include <algorithm>
#include <cmath>

#include "attn/core/round.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/spectral/fft.hpp"
#include "attn/kernels/spectral/half_spectrum.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// fnet: no weights at all: the real part of the Fourier transform over positions and channels.
//   out = Re(F_N x F_D), unnormalised, on the N x D of each head
//   Lee-Thorp et al. 2021, arXiv:2105.03824, section 3.2 (there over the whole width; here over each head's)
//   useful flops 2.5 N D (log2 N + log2 D) a head, by FFTs for real input; workspace 256 N bytes a worker and 8 N of roots, some 2.2
//   times as much where N has a prime factor above 61
// Every output depends on every position, so no causal form exists, and padding changes all of it.
//
// Channels by folded products with the D x D transform (kernels/spectral/half_spectrum.hpp), whose D/2 complex columns are then
// transformed over positions by an FFT with columns in the lanes.
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
            .grouped_heads = true,
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
        spectrum_(p.head_dim, workspace),
        fft_(p.q_len, workspace),
        blocks_(workspace.per_worker<float>(2 * fft_.rows() * 2 * spectrum_.width(0))) {}

  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const index_t heads = p_.batch * p_.heads, groups = ceil_div(spectrum_.columns(), kernels::HalfSpectrum::most_width);
    const index_t pairs = p_.q_len / 2 + 1, blocks = ceil_div(pairs, block_rows);
    const auto unfold = [&](index_t head, index_t block, int worker) {
      spectrum_.unfold(block * block_rows, std::min(pairs, (block + 1) * block_rows), a.out[head / p_.heads][head % p_.heads],
                       workspace, worker);
    };
    if (heads >= arena_threads()) {
      parallel_tasks(heads, [&](index_t head, int worker) {
        for (index_t group = 0; group < groups; ++group) transform(a, head, group, workspace, worker);
        for (index_t block = 0; block < blocks; ++block) unfold(head, block, worker);
      });
    } else {
      parallel_tasks(heads * groups,
                     [&](index_t task, int worker) { transform(a, task / groups, task % groups, workspace, worker); });
      parallel_tasks(heads * blocks, [&](index_t task, int worker) { unfold(task / blocks, task % blocks, worker); });
    }
  }

 private:
  static constexpr index_t block_rows = 512;

  // What `unfold` needs of some columns, into the output. At N = 4096 the two blocks, 1 MB, stay in L2.
  void transform(const FloatArrays& a, index_t head, index_t group, const Workspace& workspace, int worker) const {
    const auto x = a.x()[head / p_.heads][head % p_.heads];
    const auto out = a.out[head / p_.heads][head % p_.heads];
    const index_t n = p_.q_len, first = group * kernels::HalfSpectrum::most_width, width = spectrum_.width(first);
    float* const block = workspace.of(worker, blocks_).data();
    spectrum_.run(n, {x.data_handle(), x.stride(0)}, first, {block, 2 * width}, workspace, worker);
    const float* const z = fft_.run(width, block, block + 2 * fft_.rows() * width, workspace);
    kernels::copy(n, width, {z, 2 * width}, {out.row(0) + first, out.stride(0)});
    if (first > 0 || p_.head_dim % 2 != 0) return;
    for (index_t k = 0; k < n; ++k) out.row(k)[p_.head_dim / 2] = z[(2 * k + 1) * width];
  }

  Problem p_;
  kernels::HalfSpectrum spectrum_;
  kernels::Fft fft_;
  Booking<float> blocks_;
};
ATTN_VARIANT(fnet, Fnet)

}  // namespace attn
