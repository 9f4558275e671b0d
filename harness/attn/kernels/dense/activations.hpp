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
void exp(index_t m, index_t n, Rows from, Into to);                                // e^x
void exp(index_t m, index_t n, Rows from, const float* plus, Into to);             // e^(x + plus[row])
void tanh(index_t m, index_t n, Rows from, Into to);
void multiply(index_t m, index_t n, Rows from, Rows by, Into to);  // x * by

// x / by * sigmoid(gate), and whether all of `by` lie within [least, most], positive numbers; a NaN does not.
bool gated_quotient(index_t m, index_t n, Rows x, Rows by, Rows gate, float least, float most, Into to);

// A token's gates of a recurrent layer: x = x_t W + b and own = h U + c, blocks of n columns, make the next h.
void gru_gates(index_t n, const float* x, const float* own, float* h);                  // blocks r, z, n
void lstm_gates(index_t n, const float* x, const float* own, float* h, float* memory);  // blocks i, f, g, o

// to[column] = sum_j e^(k_j + b_j) v_j / sum_j e^(k_j + b_j) over m rows, for k and b of any size: an exponential a number, so for
// what products of e^k and e^b cannot give.
struct BiasedKeys {
  Rows k;
  bool shared;        // column 0 is the key of all columns
  const float* bias;  // b_j = bias[j - first] for `biases` rows from first on, which may be negative, and 0 for the others
  index_t first, biases;
};
void mean_by_exp(index_t m, index_t n, const BiasedKeys& keys, Rows v, float* to);

}  // namespace attn::kernels
