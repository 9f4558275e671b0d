// Sums over blocks of tokens, and matrices whose rows and columns sum to one: what a sorting network of blocks is made of. On the calling
// thread, without allocation.
#pragma once

#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// to[u]: the sum or mean, in double, of the rows of block u of x [m, d] or, `up_to_first`, of all rows up to its first: of sums of blocks
// in float. d is at most widest_head.
void pool_blocks(index_t m, index_t d, Rows x, index_t block, bool up_to_first, bool mean, double* to);

// l [n, n] becomes e^l after so many times: rows minus their logsumexp, then columns. scratch: n * n + 2 n.
void sinkhorn(index_t n, index_t iterations, float* l, float* scratch);

// The first of equals; 0 where the entries are NaN.
index_t largest_entry(const float* row, index_t n);

}  // namespace attn::kernels
