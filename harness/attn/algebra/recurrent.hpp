// Steps of recurrent cells, for definitions and models alike.
#pragma once

#include "attn/algebra/tensor.hpp"

namespace attn {

// One token of a gated recurrent unit:
//   (r, z) = sigmoid(x + h U + c),  n = tanh(x_n + r (h U + c)_n),  h' = (1 - z) n + z h
// x [...,rows,3D]: what the token gives to r, z and n, its biases included; h [...,rows,D], u [...,D,3D], c [...,1,3D] -> h' like h.
template <class T>
Tensor<T> gru_step(const Tensor<T>& x, const Tensor<T>& h, const Tensor<T>& u, const Tensor<T>& c);

}  // namespace attn
