// Sums, maxima, softmax: along one axis, always in the same order. Axes may be negative.
#pragma once

#include "attn/algebra/tensor.hpp"

namespace attn {

// clang-format off
enum class Keep : bool { no, yes };  // keep the reduced axis, with extent 1?

template <class T> Tensor<T> sum(const Tensor<T>& x);  // of everything: shape []
template <class T> Tensor<T> mean(const Tensor<T>& x);
template <class T> Tensor<T> sum(const Tensor<T>& x, index_t axis, Keep keep = Keep::no);
template <class T> Tensor<T> mean(const Tensor<T>& x, index_t axis, Keep keep = Keep::no);
template <class T> Tensor<T> max(const Tensor<T>& x, index_t axis, Keep keep = Keep::no);  // ties: the first
template <class T> Tensor<T> min(const Tensor<T>& x, index_t axis, Keep keep = Keep::no);
// Sums over the axes along which `shape` would be broadcast to x: the adjoint of broadcast_to.
template <class T> Tensor<T> sum_to(const Tensor<T>& x, const Shape& shape);

template <class T> Tensor<T> cumsum(const Tensor<T>& x, index_t axis);  // element i is in its own sum
template <class T> Tensor<T> logsumexp(const Tensor<T>& x, index_t axis, Keep keep = Keep::no);
template <class T> Tensor<T> log_softmax(const Tensor<T>& x, index_t axis = -1);
template <class T> Tensor<T> softmax(const Tensor<T>& x, index_t axis = -1);
// Over the allowed elements of the last axis; the mask is broadcast to x. A row without any gives zeros and no gradient.
template <class T> Tensor<T> softmax(const Tensor<T>& x, const Mask& allowed);

// Row numbers carry no gradient. Ties: the lowest index first.
template <class T> Indices argmax(const Tensor<T>& x, index_t axis = -1);  // the axis is gone
template <class T> Indices argsort(const Tensor<T>& x);  // last axis, ascending, stable
template <class T> Indices top_k(const Tensor<T>& x, index_t k);  // last axis, largest first
Indices argsort(const Indices& x);
Indices sort(const Indices& x);
// clang-format on

}  // namespace attn
