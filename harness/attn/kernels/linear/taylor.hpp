// Features whose products are the first terms of the series of e^t.
#pragma once

#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// 1, x / n^(1/4), and x_i x_j / sqrt(n) for i < j, x_i^2 / sqrt(2 n): products of two such rows are 1 + t + t^2 / 2, t = x.y / sqrt(n).
constexpr index_t taylor_features(index_t n) { return 1 + n + n * (n + 1) / 2; }

// Rows of n numbers to rows of taylor_features(n). On the calling thread; `to` lies elsewhere.
void taylor(index_t m, index_t n, Rows from, Into to);

}  // namespace attn::kernels
