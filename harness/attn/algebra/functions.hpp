// Layers and losses composed of the operations below this file; their gradients follow.
#pragma once

#include "attn/algebra/tensor.hpp"

namespace attn {

// clang-format off
// Over the last axis, without gain and bias: (x - mean) / sqrt(variance + eps); rms_norm without the mean.
template <class T> Tensor<T> layer_norm(const Tensor<T>& x, double eps = 1e-5);
template <class T> Tensor<T> rms_norm(const Tensor<T>& x, double eps = 1e-6);
// x / max(|x|, eps) over the last axis; the zero vector stays zero.
template <class T> Tensor<T> l2_normalize(const Tensor<T>& x, double eps = 1e-12);

// y_t = sum_k weight_k x_(t + k - left), zeros outside. x [...,N,C]; weight [...,K,C or 1], its leading axes broadcast.
template <class T> Tensor<T> depthwise_conv(const Tensor<T>& x, const Tensor<T>& weight, index_t left);
// The same, mixing channels and stepping by `stride`: x [...,N,C], weight [K,C,C'] -> [...,ceil(N/stride),C'].
template <class T> Tensor<T> conv(const Tensor<T>& x, const Tensor<T>& weight, index_t left, index_t stride = 1);
// Windows of `size` rows, one every `stride`: [...,N,C] -> [...,count,size,C]. Window w starts at row w*stride - left; rows
// outside x are zeros.
template <class T> Tensor<T> windows(const Tensor<T>& x, index_t size, index_t stride, index_t left, index_t count);

// Re(F_N x F_C): the real part of the unnormalised DFT over the last two axes, by matrices: O(N^2 C + N C^2).
template <class T> Tensor<T> real_dft2(const Tensor<T>& x);

// Mean over the targets that are not -1 of -log softmax(logits)[target]. logits [...,C], targets [...]. Shape [].
template <class T> Tensor<T> cross_entropy(const Tensor<T>& logits, const Indices& targets);
template <class T> Tensor<T> mse(const Tensor<T>& a, const Tensor<T>& b);

// Lower triangle: element (i, j) stays if j <= i + diagonal, else zero.
template <class T> Tensor<T> tril(const Tensor<T>& x, index_t diagonal = 0);
// clang-format on

}  // namespace attn
