// Factorisations of one matrix, for inputs and random tables. No gradient flows through.
#pragma once

#include "attn/algebra/tensor.hpp"

namespace attn {

// clang-format off
// [m,n], m <= n -> orthonormal rows that span the same space, by QR of the transpose. The diagonal of R is made positive:
// Gaussian in, Haar-distributed out.
template <class T> Tensor<T> qr_orthogonal_rows(const Tensor<T>& a);

// a [m,n] = u diag(s) v^T with u [m,r], s [r] descending, v [n,r], r = min(m,n).
template <class T>
struct Svd {
  Tensor<T> u, s, v;
};
template <class T> Svd<T> svd(const Tensor<T>& a);

// x with a x = b, a [n,n] regular, b [n,m].
template <class T> Tensor<T> solve(const Tensor<T>& a, const Tensor<T>& b);
// clang-format on

}  // namespace attn
