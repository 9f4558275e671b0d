// Rearranging: nothing is computed here. Axes may be negative.
#pragma once

#include <vector>

#include "attn/algebra/tensor.hpp"

namespace attn {

// clang-format off
template <class T> Tensor<T> reshape(const Tensor<T>& x, Shape shape);  // one extent may be -1
template <class T> Tensor<T> unsqueeze(const Tensor<T>& x, index_t axis);
template <class T> Tensor<T> squeeze(const Tensor<T>& x, index_t axis);  // the axis has extent 1
template <class T> Tensor<T> flatten(const Tensor<T>& x, index_t first, index_t last);  // both included
template <class T> Tensor<T> permute(const Tensor<T>& x, const std::vector<index_t>& order);
template <class T> Tensor<T> swap_axes(const Tensor<T>& x, index_t a, index_t b);
template <class T> Tensor<T> transpose(const Tensor<T>& x);  // the last two axes
template <class T> Tensor<T> broadcast_to(const Tensor<T>& x, const Shape& shape);
template <class T> Tensor<T> repeat(const Tensor<T>& x, index_t axis, index_t times);  // a a b b
template <class T> Tensor<T> tile(const Tensor<T>& x, index_t axis, index_t times);  // a b a b

// begin, begin + step, ... < end. Negative begin and end count from the end of the axis.
template <class T> Tensor<T> slice(const Tensor<T>& x, index_t axis, index_t begin, index_t end, index_t step = 1);
template <class T> Tensor<T> slice_from(const Tensor<T>& x, index_t axis, index_t begin);
template <class T> Tensor<T> flip(const Tensor<T>& x, index_t axis);
template <class T> std::vector<Tensor<T>> split_at(const Tensor<T>& x, index_t axis, const std::vector<index_t>& extents);

template <class T> Tensor<T> concat(const std::vector<Tensor<T>>& parts, index_t axis);
template <class T> Tensor<T> stack(const std::vector<Tensor<T>>& parts, index_t axis);  // along a new axis
template <class T> Tensor<T> pad(const Tensor<T>& x, index_t axis, index_t before, index_t after, double value = 0);
// y[i] = x[i - by], zeros where there is no such element.
template <class T> Tensor<T> shift(const Tensor<T>& x, index_t axis, index_t by);

Mask transpose(const Mask& mask);
Mask broadcast_to(const Mask& mask, const Shape& shape);
// clang-format on

}  // namespace attn
