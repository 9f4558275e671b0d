// Discrete Fourier transforms over the rows of a block of complex columns: y_k = sum_t e^(-2 pi i k t / n) x_t, unnormalised.
// Columns stand in vector lanes, so no transform needs a shuffle. Any n: radix 4, 2, 3 and, for other prime factors p, sums of p
// terms (n = p prime costs n^2).
#pragma once

#include <span>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/exec/workspace.hpp"

namespace attn::kernels {

class Fft {
 public:
  Fft(index_t n, WorkspacePlan& plan);

  // A block holds n rows of 2 * columns floats: the real parts, then the imaginary parts. Overwrites both blocks; returns the
  // one that holds the result.
  float* run(index_t columns, float* block, float* scratch, const Workspace& workspace) const;

  index_t size() const { return n_; }

 private:
  struct Pass {
    index_t radix, span;  // span: product of the radices before
    index_t twiddles;     // where those of this pass begin
  };
  static void fill(std::span<const Pass> passes, std::span<float> twiddles);

  index_t n_;
  std::vector<Pass> passes_;
  Booking<float> twiddles_;  // cosine, sine
};

}  // namespace attn::kernels
