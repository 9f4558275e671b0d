// Tensor<T>: what the variants' definitions are written in. Values only: copies are cheap, nothing is modified in place.
// A tensor remembers how it was made only if something it was made from is a variable (gradient.hpp).
// Errors of shape are bugs and assert.
#pragma once

#include <concepts>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "attn/algebra/elements.hpp"
#include "attn/core/view.hpp"

namespace attn {

template <class T>
concept Arithmetic = std::is_arithmetic_v<T>;

template <class T>
class Tensor;

// For arguments that a number may stand in for: it converts to a tensor of shape [].
template <class T>
using Operand = std::type_identity_t<Tensor<T>>;

namespace detail {
template <class T>
struct Node;
}

template <class T>
class Tensor {
 public:
  Tensor() = default;  // shape [0]
  template <Arithmetic S>
  Tensor(S value) : array_(Shape{}) {
    *array_.writable() = static_cast<T>(value);
  }
  Tensor(Shape shape, const std::vector<T>& values) : array_(std::move(shape), std::span<const T>(values)) {}
  explicit Tensor(Elements<T> array, std::shared_ptr<detail::Node<T>> node = nullptr)
      : array_(std::move(array)), node_(std::move(node)) {}

  // Copies a view, whatever its strides and number type.
  template <class U, std::size_t R>
  static Tensor from(const View<U, R>& view);

  const Shape& shape() const { return array_.shape(); }
  index_t rank() const { return array_.rank(); }
  index_t extent(index_t axis) const { return array_.extent(axis); }
  index_t size() const { return array_.size(); }
  const T* data() const { return array_.data(); }
  std::span<const T> values() const& { return array_.values(); }
  std::vector<T> values() && { return {data(), data() + size()}; }  // a span would dangle: for (T v : (a + b).values())
  const Elements<T>& array() const { return array_; }

  template <class... I>
  T operator()(I... indices) const {
    return array_(indices...);
  }
  T item() const { return ATTN_ASSERT(size() == 1), *data(); }

  template <class U, std::size_t R>
  void copy_to(const View<U, R>& view) const;

  bool requires_gradient() const { return node_ != nullptr; }
  const std::shared_ptr<detail::Node<T>>& node() const { return node_; }

  friend Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
  friend Tensor operator-(const Tensor& a, const Tensor& b) { return subtract(a, b); }
  friend Tensor operator*(const Tensor& a, const Tensor& b) { return multiply(a, b); }
  friend Tensor operator/(const Tensor& a, const Tensor& b) { return divide(a, b); }
  friend Tensor operator-(const Tensor& a) { return negate(a); }
  friend Mask operator<(const Tensor& a, const Tensor& b) { return less(a, b); }
  friend Mask operator>(const Tensor& a, const Tensor& b) { return less(b, a); }
  friend Mask operator<=(const Tensor& a, const Tensor& b) { return less_equal(a, b); }
  friend Mask operator>=(const Tensor& a, const Tensor& b) { return less_equal(b, a); }

 private:
  Elements<T> array_;
  std::shared_ptr<detail::Node<T>> node_;
};

template <class T>
Tensor<T> full(Shape shape, std::type_identity_t<T> value) {
  Elements<T> out(std::move(shape));
  std::fill_n(out.writable(), out.size(), value);
  return Tensor<T>(std::move(out));
}

template <class T>
Tensor<T> zeros(Shape shape) {
  return full<T>(std::move(shape), T{0});
}

template <class T>
Tensor<T> ones(Shape shape) {
  return full<T>(std::move(shape), T{1});
}

// The tensor of f(i, j, ...), one index an axis.
template <class T, class F>
Tensor<T> tabulate(Shape shape, F f) {
  return Tensor<T>(Elements<T>::from(std::move(shape), std::move(f)));
}

// The tensor of f(0), f(1), ... in row-major order: for random numbers.
template <class T, class F>
Tensor<T> generate(const Shape& shape, F f) {
  return Tensor<T>(Elements<T>::from({volume(shape)}, std::move(f)).reshaped(shape));
}

template <class T>
Tensor<T> arange(index_t count) {
  return tabulate<T>({count}, [](index_t i) { return i; });
}

template <class T>
Tensor<T> identity(index_t n) {
  return tabulate<T>({n, n}, [](index_t i, index_t j) { return i == j; });
}

// The same values in another number type, or from a table. No gradient flows through.
template <class T, class U>
Tensor<T> cast(const Elements<U>& from) {
  Elements<T> out(from.shape());
  std::transform(from.data(), from.data() + from.size(), out.writable(), [](U value) { return static_cast<T>(value); });
  return Tensor<T>(std::move(out));
}

template <class T, class U>
Tensor<T> cast(const Tensor<U>& from) {
  return cast<T>(from.array());
}

namespace detail {

template <class U, std::size_t R, class F>
void for_each_element(const View<U, R>& view, F f) {
  for (index_t i = 0; i < view.extent(0); ++i) {
    if constexpr (R == 1) {
      f(view(i));
    } else {
      for_each_element(view[i], f);
    }
  }
}

}  // namespace detail

template <class T>
template <class U, std::size_t R>
Tensor<T> Tensor<T>::from(const View<U, R>& view) {
  Elements<T> out(Shape(view.extents().begin(), view.extents().end()));
  T* next = out.writable();
  detail::for_each_element(view, [&](const U& element) { *next++ = static_cast<T>(element); });
  return Tensor(std::move(out));
}

template <class T>
template <class U, std::size_t R>
void Tensor<T>::copy_to(const View<U, R>& view) const {
  ATTN_ASSERT(std::equal(shape().begin(), shape().end(), view.extents().begin(), view.extents().end()));
  const T* next = data();
  detail::for_each_element(view, [&](U& element) { element = static_cast<U>(*next++); });
}

}  // namespace attn
