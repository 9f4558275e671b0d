// What is done to rows of floats between two products: feature maps, maxima, sums, softmax. On the calling thread, without
// allocation; m rows of n columns. Where both are named, `to` may be `from`.
#pragma once

#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

void copy(index_t m, index_t n, Rows from, Into to);
void transpose(index_t m, index_t n, Rows from, Into to);              // to is [n,m], elsewhere
void add(index_t m, index_t n, Rows from, Into to, float factor = 1);  // to += factor * from
void scale_rows(index_t m, index_t n, Rows from, const float* factor, Into to);

// Feature maps, element by element.
void elu_plus_one(index_t m, index_t n, Rows from, Into to);                              // x + 1, or e^x where x <= 0
void elu_plus_one_gradient(index_t m, index_t n, Rows features, Rows gradient, Into to);  // gradient * min(feature, 1)
void relu_gradient(index_t m, index_t n, Rows features, Into gradient);                   // itself where feature > 0, else 0
void relu(index_t m, index_t n, Rows from, const float* factor, Into to);                 // max(x, 0) * factor[row]
void relu_plus(index_t m, index_t n, Rows from, float plus, Into to);                     // max(x, 0) + plus
void exp_minus(index_t m, index_t n, Rows from, const float* shift, Into to);             // e^(x - shift[column])
void scale_columns(index_t m, index_t n, Rows from, const float* factor, Into to);
// factor * (e^(x - shift[row]) + plus)
void exp_features(index_t m, index_t n, Rows from, const float* shift, float factor, float plus, Into to);
// factor * sin x and factor * cos x, to 1e-6 for |x| <= 1000
void sin_cos(index_t m, index_t n, Rows from, float factor, Into sines, Into cosines);

void softmax(index_t m, index_t n, Rows from, float scale, Into to);  // of scale * row, over its columns
// From the gradient of the weights w that a softmax gave to that of its logits: itself becomes w * (itself - its mean by w).
void softmax_gradient(index_t m, index_t n, Rows weights, Into gradient);

// One number a row, or a column.
void row_max(index_t m, index_t n, Rows from, float* to);
void row_squares(index_t m, index_t n, Rows from, float* to);                     // sum of x^2
void row_dots(index_t m, index_t n, Rows from, const float* weights, float* to);  // sum of x * weights[column]
void add_row_sums(index_t m, index_t n, Rows from, float* to);                    // to[row] += sum of x
void add_column_sums(index_t m, index_t n, Rows from, float* to);                 // to[column] += sum of x
void raise_column_max(index_t m, index_t n, Rows from, float* to);                // to[column] = max(itself, x)

// Row i becomes the sum of rows 0..i of `from` and of start, added to what it holds if `add`; total[column] = the sum of all rows.
void running_sums(index_t m, index_t n, Rows from, const float* start, bool add, Into to, float* total);
// sum + rest, n numbers each, += from, without rounding twice: rest is what sum has no digits for.
void add_exactly(index_t n, const float* from, float* sum, float* rest);

// Where floats would round too much: to [m,n] += a [m,k] b [k,n] in doubles, without strides but for a b of floats.
void add_product(index_t m, index_t n, index_t k, const double* a, Rows b, double* to);
void add_product(index_t m, index_t n, index_t k, const double* a, const double* b, double* to);

}  // namespace attn::kernels
