// Discrete Fourier transforms over the rows of a block of complex columns: y_k = sum_t e^(-2 pi i k t / n) x_t, unnormalised.
// Columns stand in vector lanes, so no transform needs a shuffle. Any n takes n log n: radix 8, 4, 2, 3 and, for other small prime factors
// p, sums of p terms; with a large one, Bluestein's convolution (1970) by transforms of 2 n rows and more.
#pragma once

#include <span>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/exec/workspace.hpp"

namespace attn::kernels {

class Fft {
 public:
  Fft(index_t n, WorkspacePlan& plan);

  // A block holds n rows of 2 * columns floats, the real parts, then the imaginary parts, and has room for rows() of them.
  // Overwrites both blocks; returns the one that holds the result.
  float* run(index_t columns, float* block, float* scratch, const Workspace& workspace) const;

  index_t size() const { return n_; }
  index_t rows() const { return rows_; }

 private:
  struct Pass {
    index_t radix, span;  // span: product of the radices before
    index_t twiddles;     // where those of this pass begin
  };
  static void fill(std::span<const Pass> passes, std::span<float> twiddles);
  void run_passes(index_t columns, float*& block, float*& scratch, const Workspace& workspace) const;

  index_t n_;
  index_t rows_;  // of a transform by passes: n, or more for a convolution
  std::vector<Pass> passes_;
  Booking<float> twiddles_;        // cosine, sine, and below
  Booking<float> chirp_, filter_;  // e^(-pi i t^2 / n) for t < n; the transform of its conjugate, over rows_
};

}  // namespace attn::kernels
