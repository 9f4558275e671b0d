// Long convolutions over rows, channel by channel, in which no row has a part in those before it, not even by rounding: what is near is summed
// directly, and blocks of rows meet those after them, of the same length, by Fourier transforms of both lengths together.
#pragma once

#include <vector>

#include "attn/core/view.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/spectral/fft.hpp"

namespace attn::kernels {

// y_t = sum_(u <= t, u < taps) filter_u x_(t-u), of n rows; filter [taps, channels]. O(n log^2 n) a channel. A NaN or an infinity may show in other
// channels and in all later rows.
class CausalConvolution {
 public:
  CausalConvolution(index_t n, index_t channels, index_t taps, WorkspacePlan&);

  // Tasks of two phases, of which the first writes y and the second adds to it. x and y [any,any,n,channels], last stride 1.
  index_t near_tasks() const;  // of a head
  void near(index_t task, Rows filter, Rows x, Into y) const;
  index_t far_tasks() const;  // of a head of all batch items
  void far(index_t task, index_t head, Rows filter, const View<const float, 4>& x, const View<float, 4>& y, const Workspace&,
           int worker) const;

 private:
  struct Level {
    index_t size;  // rows of a block
    bool every;    // each block meets the next one; else the first of two
    index_t at;    // of its transform
  };
  void load(Rows from, index_t rows, index_t channels, index_t columns, index_t size, float* block) const;

  index_t n_, channels_, taps_;
  std::vector<Level> levels_;
  std::vector<Fft> transforms_;
  Booking<float> blocks_;
};

}  // namespace attn::kernels
