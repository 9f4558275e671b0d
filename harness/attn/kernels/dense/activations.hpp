// What mixers without attention do to rows of floats between two products. As rows.hpp: on the calling thread, m rows of n
// columns, `to` may be `from`.
#pragma once

#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

void gelu(index_t m, index_t n, Rows from, const float* plus, Into to);            // y Phi(y), y = x + plus[row]
void sigmoid(index_t m, index_t n, Rows from, float factor, float plus, Into to);  // of factor * x + plus
void layer_norm(index_t m, index_t n, Rows from, float eps, Into to);              // (x - mean) / sqrt(variance + eps)
void add_to_rows(index_t m, index_t n, Rows from, const float* plus, Into to);     // x + plus[row]
void gate(index_t m, index_t n, Rows from, const float* plus, Rows by, Into to);   // (x + plus[row]) * by
void sigmoid_gate(index_t m, index_t n, Rows from, Rows by, Into to);              // x * sigmoid(by)
void divide(index_t m, index_t n, Rows from, Rows by, float least, Into to);       // x / max(by, least)
void exp(index_t m, index_t n, Rows from, const float* plus, Into to);             // e^(x + plus[row])
void exp_minus_one(index_t m, index_t n, Rows from, Into to);                      // e^x - 1, absolute error 1e-7
void tanh(index_t m, index_t n, Rows from, Into to);
void multiply(index_t m, index_t n, Rows from, Rows by, Into to);  // x * by

}  // namespace attn::kernels
