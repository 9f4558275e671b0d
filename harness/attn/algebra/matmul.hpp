// Matrix products over the last two axes; the leading axes are broadcast.
#pragma once

#include "attn/algebra/tensor.hpp"

namespace attn {

// clang-format off
template <class T> Tensor<T> matmul(const Tensor<T>& a, const Tensor<T>& b);  // [...,n,k] [...,k,m] -> [...,n,m]
template <class T> Tensor<T> matmul_transposed(const Tensor<T>& a, const Tensor<T>& b);  // [...,n,k] [...,m,k] -> [...,n,m]
// clang-format on

}  // namespace attn
