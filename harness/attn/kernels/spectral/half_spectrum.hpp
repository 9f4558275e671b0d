// Transforms of rows of D real numbers, z_l = sum_c e^(-2 pi i c l / D) x_c. z_(D-l) is the conjugate of z_l, and z_0 and z_(D/2) are
// real and share a column, z_0 + i z_(D/2): (D + 1) / 2 complex columns.
//
// Where 4 divides D the rows are folded at D/2 and at D/4 (sums for cosines, differences for sines), which leaves columns of even and
// of odd l apart, each products of a quarter of the length: 0.32 of the flops of one D x D product.
#pragma once

#include <algorithm>
#include <span>

#include "attn/core/view.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

class HalfSpectrum {
 public:
  HalfSpectrum(index_t d, WorkspacePlan& plan);

  index_t columns() const { return columns_of(d_); }

  // Columns first .. first + width(first) - 1 of the transforms of n rows, for a multiple `first` of most_width: real parts in
  // to.data[row][0..width), imaginary ones in [width..2 width).
  static constexpr index_t most_width = 16;
  index_t width(index_t first) const { return width_of(d_, first); }
  void run(index_t n, Rows x, index_t first, Into to, const Workspace& workspace, int worker) const;

  // The way back, of a spectrum whose n rows were transformed too: row k of `out` begins with the real parts of its columns and, where
  // D is even, the imaginary part of the first. It becomes Re z_kl for l < D, as z_(n-k),(D-l) is the conjugate of z_kl. Rows k and
  // n - k for first <= k < end <= n / 2 + 1.
  void unfold(index_t first, index_t end, const View<float, 2>& out, const Workspace& workspace, int worker) const;

 private:
  static bool folds(index_t d) { return d % 4 == 0 && d >= 64; }
  static index_t columns_of(index_t d) { return (d + 1) / 2; }
  static index_t width_of(index_t d, index_t first) { return std::min(most_width, columns_of(d) - first); }
  static void fill(index_t d, std::span<float> to);
  static void fill_folded(index_t d, std::span<float> to);

  static constexpr index_t panel = 64;  // rows that are folded at a time

  index_t d_;
  Booking<float> roots_;    // of each most_width columns, [D, 2 width]; or, folded, of even l cosines [D/4 + 1, D/4] and sines
                            // [D/2, D/4], of odd l each [D/4, D/4]
  Booking<float> scratch_;  // [panel, D/2] folded, or two rows of parts
};

}  // namespace attn::kernels
