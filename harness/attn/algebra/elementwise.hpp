// Element by element, with broadcasting. + - * / < > <= >= are operators of Tensor; a number may stand for any operand
// but the first of a named function.
#pragma once

#include "attn/algebra/tensor.hpp"

namespace attn {

// clang-format off
template <class T> Tensor<T> add(const Tensor<T>& a, const Tensor<T>& b);
template <class T> Tensor<T> subtract(const Tensor<T>& a, const Tensor<T>& b);
template <class T> Tensor<T> multiply(const Tensor<T>& a, const Tensor<T>& b);
template <class T> Tensor<T> divide(const Tensor<T>& a, const Tensor<T>& b);
template <class T> Tensor<T> maximum(const Tensor<T>& a, const Operand<T>& b);  // ties: the gradient goes to a
template <class T> Tensor<T> minimum(const Tensor<T>& a, const Operand<T>& b);
template <class T> Tensor<T> where(const Mask& condition, const Tensor<T>& yes, const Operand<T>& no);
template <class T> Tensor<T> masked_fill(const Tensor<T>& x, const Mask& filled, double value);

template <class T> Tensor<T> negate(const Tensor<T>& x);
template <class T> Tensor<T> exp(const Tensor<T>& x);
template <class T> Tensor<T> exp2(const Tensor<T>& x);
template <class T> Tensor<T> log(const Tensor<T>& x);
template <class T> Tensor<T> sqrt(const Tensor<T>& x);
template <class T> Tensor<T> square(const Tensor<T>& x);
template <class T> Tensor<T> reciprocal(const Tensor<T>& x);
template <class T> Tensor<T> pow(const Tensor<T>& x, double exponent);
template <class T> Tensor<T> abs(const Tensor<T>& x);  // slope 0 at 0
template <class T> Tensor<T> sin(const Tensor<T>& x);
template <class T> Tensor<T> cos(const Tensor<T>& x);
template <class T> Tensor<T> tanh(const Tensor<T>& x);
template <class T> Tensor<T> sigmoid(const Tensor<T>& x);
template <class T> Tensor<T> softplus(const Tensor<T>& x);
template <class T> Tensor<T> relu(const Tensor<T>& x);  // slope 0 at 0
template <class T> Tensor<T> elu(const Tensor<T>& x);  // x or e^x - 1
template <class T> Tensor<T> gelu(const Tensor<T>& x);  // x Phi(x), Phi exact by erf
template <class T> Tensor<T> silu(const Tensor<T>& x);  // x sigmoid(x)

template <class T> Mask less(const Tensor<T>& a, const Tensor<T>& b);
template <class T> Mask less_equal(const Tensor<T>& a, const Tensor<T>& b);

Mask operator&(const Mask& a, const Mask& b);
Mask operator|(const Mask& a, const Mask& b);
Mask operator!(const Mask& a);
Mask equal(const Indices& a, const Indices& b);
Mask less(const Indices& a, const Indices& b);
Mask less_equal(const Indices& a, const Indices& b);
// clang-format on

}  // namespace attn
