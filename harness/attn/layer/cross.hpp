// Cross-attention: tokens that look at those of another sequence, by any variant with a cross form, be its score additive, Luong's or
// a scaled product.
//   Bahdanau et al. 2014, arXiv:1409.0473, section 3.1; Luong et al. 2015, arXiv:1508.04025, section 3.1; Vaswani et al. 2017,
//   arXiv:1706.03762, section 3.2.3
#pragma once

#include "attn/layer/layer.hpp"

namespace attn {

// What is asked of the mixer: `queries` tokens that look at `keys` others. Never causal: all of the other sequence is there.
Problem cross_problem(const LayerShape& shape, index_t batch, index_t queries, index_t keys);

// Refuses a variant without a cross form, and one whose rows do not do without each other: it would see answers that are yet to be given.
Status supports_cross(const LayerShape& shape, const Variant& variant, index_t queries, index_t keys);

Parameters cross_parameters(const LayerShape& shape, const Variant& variant, index_t queries, index_t keys);

// Keys and values of the other sequence, [B,H,M,D]: made once, looked at often.
template <class T>
struct CrossMemory {
  Tensor<T> k, v;
};
template <class T>
CrossMemory<T> cross_memory(const LayerShape& shape, const Variant& variant, const Weights<T>& weights, const Tensor<T>& others);

// Wo mix(Wq x, K, V) -> [batch, rows, width], without a residual. x [batch, rows, width] holds rows first, first + 1, ... of `queries`.
template <class T>
Tensor<T> cross(const LayerShape& shape, const Variant& variant, const Weights<T>& weights, const Tensor<T>& x,
                const CrossMemory<T>& memory, index_t queries, index_t first = 0);

}  // namespace attn
