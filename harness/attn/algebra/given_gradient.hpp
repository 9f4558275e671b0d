// A place on the tape for what was computed elsewhere.
#pragma once

#include <functional>
#include <vector>

#include "attn/algebra/tensor.hpp"

namespace attn {

// From the gradient with respect to a tensor to those with respect to what it was made from, each of its shape.
template <class T>
using Pull = std::function<std::vector<Tensor<T>>(const Tensor<T>& gradient)>;

// `value`, which was made from `from` by other means than this algebra, with its own reverse mode: `pull` is called once for each
// call of gradients() that reaches the value, unless nothing in `from` is a variable.
template <class T>
Tensor<T> with_gradient(const Tensor<T>& value, const std::vector<Tensor<T>>& from, Pull<T> pull);

}  // namespace attn
