// Softmax's relatives that give most weights as zeros: what exceeds a threshold of its row. As rows.hpp: on the calling thread, without
// allocation, m rows of n columns, `to` may be `from`.
#pragma once

#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// Of x = scale * row: max(x - t, 0), or max(x / 2 - t, 0)^2, with the t for which the row adds up to 1. `scale` is positive.
void sparsemax(index_t m, index_t n, Rows from, float scale, Into to);
void entmax15(index_t m, index_t n, Rows from, float scale, Into to);

}  // namespace attn::kernels
