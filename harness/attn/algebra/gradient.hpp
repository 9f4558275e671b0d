// Reverse mode. Definitions need no change for it: mark the inputs as variables, compute, ask for gradients.
#pragma once

#include <vector>

#include "attn/algebra/tensor.hpp"

namespace attn {

// The same values, as a leaf that gradients can be asked for.
template <class T>
Tensor<T> variable(const Tensor<T>& value);

// The same values, as a constant.
template <class T>
Tensor<T> detach(const Tensor<T>& value) {
  return Tensor<T>(value.array());
}

// d output / d leaf for every leaf; zeros where the output does not depend on it. The output has one element.
template <class T>
std::vector<Tensor<T>> gradients(const Tensor<T>& output, const std::vector<Tensor<T>>& leaves);

}  // namespace attn
