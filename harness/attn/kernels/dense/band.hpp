// Convolutions over rows, channel by channel: few weights, no products of matrices.
#pragma once

#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// The rows of one sequence that a window may read.
struct Sequence {
  Rows rows;
  index_t count;
};

// to_i (+)= sum_u w_i,u x_(first + i + u - left) for i < m, over rows that exist: one weight for all n channels. Row i of
// `weights` has `taps` of them; stride 0: the same for every row.
void band(index_t m, index_t n, Rows weights, index_t taps, index_t first, index_t left, const Sequence& x, bool add, Into to);

// to_i (+)= sum_u w_u * x_(first + i + u - left), a weight for each channel: row u of `weights`.
void depthwise(index_t m, index_t n, Rows weights, index_t taps, index_t first, index_t left, const Sequence& x, bool add, Into to);

}  // namespace attn::kernels
