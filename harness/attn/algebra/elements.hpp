// Elements<E>: the elements of a tensor, a mask or an index table. Row-major, immutable once handed out, cheap to copy.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "attn/algebra/shape.hpp"
#include "attn/core/assert.hpp"

namespace attn {

template <class E>
class Elements {
 public:
  Elements() : Elements(Shape{0}) {}

  // Not initialised: for the function that fills the array through writable() before anybody else sees it.
  explicit Elements(Shape shape)
      : shape_(std::move(shape)),
        size_(volume(shape_)),
        elements_(std::make_shared_for_overwrite<E[]>(static_cast<std::size_t>(size_))) {}

  Elements(Shape shape, std::span<const E> values) : Elements(std::move(shape)) {
    ATTN_ASSERT(static_cast<index_t>(values.size()) == size_);
    std::copy(values.begin(), values.end(), elements_.get());
  }

  const Shape& shape() const { return shape_; }
  index_t rank() const { return static_cast<index_t>(shape_.size()); }
  index_t extent(index_t axis) const { return shape_[axis_of(axis, shape_.size())]; }
  index_t size() const { return size_; }

  const E* data() const { return elements_.get(); }
  E* writable() { return elements_.get(); }
  std::span<const E> values() const& { return {data(), static_cast<std::size_t>(size_)}; }
  std::vector<E> values() && { return {data(), data() + size_}; }  // a span would dangle

  template <class... I>
  E operator()(I... indices) const {
    ATTN_ASSERT(sizeof...(I) == shape_.size());
    std::size_t r = 0;
    index_t offset = 0;
    ((offset = offset * shape_[r++] + static_cast<index_t>(indices)), ...);
    return data()[offset];
  }

  // The array of f(i, j, ...), one index an axis.
  template <class F>
  static Elements from(Shape shape, F f);

  // Shares the elements. One extent may be -1.
  Elements reshaped(Shape shape) const {
    Elements other = *this;
    other.shape_ = resolve(std::move(shape), size_);
    return other;
  }

 private:
  Shape shape_;
  index_t size_;
  std::shared_ptr<E[]> elements_;
};

using Mask = Elements<bool>;        // true: allowed
using Indices = Elements<index_t>;  // row numbers

namespace detail {

template <class F, class... I>
constexpr std::size_t arity() {
  static_assert(sizeof...(I) < 6, "the function must take 1 to 5 indices");
  if constexpr (std::is_invocable_v<F&, I...>) {
    return sizeof...(I);
  } else {
    return arity<F, I..., index_t>();
  }
}

template <class E, class F, class... I>
void tabulate(E*& out, const Shape& shape, F& f, I... indices) {
  if constexpr (std::is_invocable_v<F&, I...>) {
    *out++ = static_cast<E>(f(indices...));
  } else {
    for (index_t i = 0; i < shape[sizeof...(I)]; ++i) tabulate(out, shape, f, indices..., i);
  }
}

}  // namespace detail

template <class E>
template <class F>
Elements<E> Elements<E>::from(Shape shape, F f) {
  ATTN_ASSERT((shape.size() == detail::arity<F>()));
  Elements out(std::move(shape));
  E* next = out.writable();
  detail::tabulate(next, out.shape(), f);
  return out;
}

// The same in words: mask({n, m}, [](index_t i, index_t j) { return j <= i; }).
template <class F>
Mask mask(Shape shape, F allowed) {
  return Mask::from(std::move(shape), std::move(allowed));
}

}  // namespace attn
