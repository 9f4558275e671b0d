// What one row gives to others. On the calling thread, without allocation.
#pragma once

#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// m rows of n columns become `row`. `past_caches`: without reading the lines first, for an output that does not stay in them.
void repeat_row(index_t m, index_t n, const float* row, Into to, bool past_caches);

// to = keep * to + factor * row, n numbers.
void mix_row(index_t n, float keep, float factor, const float* row, float* to);

}  // namespace attn::kernels
