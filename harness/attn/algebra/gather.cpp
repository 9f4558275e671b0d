#include "attn/algebra/gather.hpp"

#include <algorithm>
#include <utility>

#include "attn/algebra/gradient.hpp"
#include "attn/algebra/layout.hpp"
#include "attn/algebra/node.hpp"
#include "attn/algebra/strided.hpp"

namespace attn {

using detail::Adjoint;
using detail::edge;
using detail::record;

namespace {

constexpr index_t nowhere = -1;

// Block i of the result is block source[i] of x, each `block` elements long.
template <class T>
void gather_blocks(const T* x, const Indices& source, index_t block, T* out) {
  for (const index_t from : source.values()) {
    if (from == nowhere) {
      std::fill_n(out, block, T{0});
    } else {
      std::copy_n(x + from * block, block, out);
    }
    out += block;
  }
}

template <class T>
void scatter_blocks(const T* x, const Indices& target, index_t block, T* out) {
  for (const index_t to : target.values()) {
    if (to != nowhere) {
      for (index_t i = 0; i < block; ++i) out[to * block + i] += x[i];
    }
    x += block;
  }
}

template <class T>
Tensor<T> gather_tensor(const Tensor<T>& x, const Indices& source, index_t block, Shape shape) {
  Elements<T> out(std::move(shape));
  gather_blocks(x.data(), source, block, out.writable());
  return record(
      std::move(out),
      {edge(x, [source, block](const Tensor<T>& g, Adjoint<T>& into) { scatter_blocks(g.data(), source, block, into.sum()); })});
}

// Row numbers within each of the leading positions become row numbers in the whole array: rows [...,n] of [...,extent].
Indices absolute(const Indices& rows, index_t extent) {
  Indices result(rows.shape());
  const index_t n = rows.extent(-1);
  for (index_t i = 0; i < rows.size(); ++i) {
    const index_t row = rows.data()[i];
    ATTN_ASSERT(nowhere <= row && row < extent);
    result.writable()[i] = row == nowhere ? nowhere : i / n * extent + row;
  }
  return result;
}

Shape leading(const Shape& shape, std::size_t dropped) {
  ATTN_ASSERT(shape.size() >= dropped);
  return Shape(shape.begin(), shape.end() - static_cast<Shape::difference_type>(dropped));
}

Shape joined(Shape lead, std::initializer_list<index_t> tail) {
  lead.insert(lead.end(), tail);
  return lead;
}

}  // namespace

template <class T>
Tensor<T> take(const Tensor<T>& x, const Indices& rows, index_t axis) {
  const auto a = static_cast<Shape::difference_type>(axis_of(axis, x.shape().size()));
  const Shape before(x.shape().begin(), x.shape().begin() + a);
  const Shape after(x.shape().begin() + a + 1, x.shape().end());
  const Indices flat = rows.reshaped({-1});
  const Indices source = absolute(broadcast_to(flat, {volume(before), flat.size()}), x.extent(axis));
  Shape shape = before;
  shape.insert(shape.end(), rows.shape().begin(), rows.shape().end());
  shape.insert(shape.end(), after.begin(), after.end());
  return gather_tensor(x, source, volume(after), std::move(shape));
}

template <class T>
Tensor<T> take_along(const Tensor<T>& x, const Indices& at, index_t axis) {
  ATTN_ASSERT(with_extent(x.shape(), axis, 1) == with_extent(at.shape(), axis, 1));
  const index_t inner = row_major_strides(at.shape())[axis_of(axis, at.shape().size())];
  const index_t n = at.extent(axis);
  const index_t extent = x.extent(axis);
  Indices source(at.shape());
  for (index_t i = 0; i < at.size(); ++i) {
    const index_t row = at.data()[i];
    ATTN_ASSERT(nowhere <= row && row < extent);
    source.writable()[i] = row == nowhere ? nowhere : (i / (inner * n) * extent + row) * inner + i % inner;
  }
  return gather_tensor(x, source, 1, at.shape());
}

template <class T>
Tensor<T> gather_rows(const Tensor<T>& x, const Indices& rows) {
  const Shape lead = broadcast_shapes(leading(x.shape(), 2), leading(rows.shape(), 1));
  const index_t extent = x.extent(-2);
  const index_t width = x.extent(-1);
  const index_t n = rows.extent(-1);
  return gather_tensor(broadcast_to(x, joined(lead, {extent, width})), absolute(broadcast_to(rows, joined(lead, {n})), extent),
                       width, joined(lead, {n, width}));
}

template <class T>
Tensor<T> scatter_add_rows(const Tensor<T>& x, const Indices& rows, index_t row_count) {
  const Shape lead = broadcast_shapes(leading(x.shape(), 2), leading(rows.shape(), 1));
  const index_t n = rows.extent(-1);
  ATTN_ASSERT(x.extent(-2) == n);
  const index_t width = x.extent(-1);
  const Tensor<T> wide = broadcast_to(x, joined(lead, {n, width}));
  const Indices target = absolute(broadcast_to(rows, joined(lead, {n})), row_count);
  Elements<T> out = zeros<T>(joined(lead, {row_count, width})).array();
  scatter_blocks(wide.data(), target, width, out.writable());
  return record(
      std::move(out),
      {edge(wide, [target, width, shape = wide.shape()](const Tensor<T>& g) { return gather_tensor(g, target, width, shape); })});
}

template <class T>
Tensor<T> one_hot(const Indices& x, index_t classes) {
  const index_t n = x.size();
  return reshape(scatter_add_rows(ones<T>({n, 1, 1}), x.reshaped({n, 1}), classes), joined(x.shape(), {classes}));
}

Indices gather(const Indices& x, const Indices& at) {
  ATTN_ASSERT(leading(x.shape(), 1) == leading(at.shape(), 1));
  const Indices source = absolute(at, x.extent(-1));
  return detail::map<index_t>([data = x.data()](index_t i) { return i == nowhere ? nowhere : data[i]; }, source);
}

Indices invert_permutation(const Indices& x) {
  Indices result(x.shape());
  const Indices target = absolute(x, x.extent(-1));
  for (index_t i = 0; i < x.size(); ++i) result.writable()[target.data()[i]] = i % x.extent(-1);
  return result;
}

Indices broadcast_to(const Indices& x, const Shape& shape) { return detail::broadcast_array(x, shape); }

#define ATTN_INSTANTIATE(T)                                                       \
  template Tensor<T> take(const Tensor<T>&, const Indices&, index_t);             \
  template Tensor<T> take_along(const Tensor<T>&, const Indices&, index_t);       \
  template Tensor<T> gather_rows(const Tensor<T>&, const Indices&);               \
  template Tensor<T> scatter_add_rows(const Tensor<T>&, const Indices&, index_t); \
  template Tensor<T> one_hot(const Indices&, index_t);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
