// Choosing rows by number, and putting them back. An index of -1 stands for a row of zeros (gather) or for no row at all
// (scatter), so ragged groups need no mask here; other indices out of range assert.
#pragma once

#include "attn/algebra/tensor.hpp"

namespace attn {

// clang-format off
// The axis is replaced by the axes of `rows`: take(embedding [V,D], tokens [B,N], 0) is [B,N,D].
template <class T> Tensor<T> take(const Tensor<T>& x, const Indices& rows, index_t axis);
// One element per index along the axis; the other axes of x and `at` agree.
template <class T> Tensor<T> take_along(const Tensor<T>& x, const Indices& at, index_t axis);
// x [...,N,D], rows [...,n] -> [...,n,D]; leading axes broadcast.
template <class T> Tensor<T> gather_rows(const Tensor<T>& x, const Indices& rows);
// The adjoint of gather_rows: x [...,n,D], rows [...,n] -> [...,N,D] with N = row_count; rows named twice add up.
template <class T> Tensor<T> scatter_add_rows(const Tensor<T>& x, const Indices& rows, index_t row_count);

template <class T> Tensor<T> one_hot(const Indices& x, index_t classes);  // [...] -> [...,classes]; -1 gives zeros

Indices gather(const Indices& x, const Indices& at);  // along the last axis; leading axes agree
Indices invert_permutation(const Indices& x);         // of every row
Indices broadcast_to(const Indices& x, const Shape& shape);
// clang-format on

}  // namespace attn
