#include "attn/algebra/layout.hpp"

#include <algorithm>
#include <numeric>

#include "attn/algebra/gradient.hpp"
#include "attn/algebra/node.hpp"
#include "attn/algebra/reduce.hpp"
#include "attn/algebra/strided.hpp"

namespace attn {

using detail::Adjoint;
using detail::Edge;
using detail::edge;
using detail::record;

namespace {

// The elements of a larger array at offset + i.strides.
struct Window {
  Shape extents;
  index_t offset;
  Shape strides;
};

Window window(const Shape& shape, index_t axis, index_t begin, index_t count, index_t step) {
  const std::size_t a = axis_of(axis, shape.size());
  Window w{shape, 0, row_major_strides(shape)};
  w.extents[a] = count;
  w.offset = begin * w.strides[a];
  w.strides[a] *= step;
  return w;
}

template <class E>
Elements<E> read(const Elements<E>& from, const Window& w) {
  return detail::copy_strided(w.extents, from.data() + w.offset, w.strides);
}

// f(element of the window, element of values) for every element.
template <class E, class F>
void write(E* to, const Window& w, const Elements<E>& values, F f) {
  ATTN_ASSERT(values.shape() == w.extents);
  const E* in = values.data();
  detail::for_each_run<1>(w.extents, {w.strides}, [&](const auto& offsets, const auto& steps, index_t count) {
    E* out = to + w.offset + offsets[0];
    for (index_t i = 0; i < count; ++i) f(out[i * steps[0]], in[i]);
    in += count;
  });
}

// Adds to the window alone, so that taking a sequence apart costs its length and not the square of it.
template <class T>
Tensor<T> slice_window(const Tensor<T>& x, Window w) {
  return record(read(x.array(), w), {edge(x, [w](const Tensor<T>& g, Adjoint<T>& into) {
                  write(into.sum(), w, g.array(), [](T& out, T value) { out += value; });
                })});
}

std::vector<std::size_t> last_two_swapped(index_t rank) {
  ATTN_ASSERT(rank >= 2);
  std::vector<std::size_t> order(static_cast<std::size_t>(rank));
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  return order;
}

template <class T>
Tensor<T> permute_axes(const Tensor<T>& x, const std::vector<std::size_t>& order) {
  std::vector<std::size_t> inverse(order.size());
  for (std::size_t r = 0; r < order.size(); ++r) inverse[order[r]] = r;
  return record(detail::permute_array(x.array(), order),
                {edge(x, [inverse](const Tensor<T>& g) { return Tensor<T>(detail::permute_array(g.array(), inverse)); })});
}

}  // namespace

template <class T>
Tensor<T> reshape(const Tensor<T>& x, Shape shape) {
  return record(x.array().reshaped(std::move(shape)),
                {edge(x, [back = x.shape()](const Tensor<T>& g) { return Tensor<T>(g.array().reshaped(back)); })});
}

template <class T>
Tensor<T> unsqueeze(const Tensor<T>& x, index_t axis) {
  return reshape(x, with_axis(x.shape(), axis, 1));
}

template <class T>
Tensor<T> squeeze(const Tensor<T>& x, index_t axis) {
  return reshape(x, without_axis(x.shape(), axis));
}

template <class T>
Tensor<T> flatten(const Tensor<T>& x, index_t first, index_t last) {
  const std::size_t from = axis_of(first, x.shape().size());
  const std::size_t to = axis_of(last, x.shape().size());
  ATTN_ASSERT(from <= to);
  Shape shape;
  for (std::size_t r = 0; r < x.shape().size(); ++r) {
    if (from < r && r <= to) {
      shape.back() *= x.shape()[r];
    } else {
      shape.push_back(x.shape()[r]);
    }
  }
  return reshape(x, shape);
}

template <class T>
Tensor<T> permute(const Tensor<T>& x, const std::vector<index_t>& order) {
  std::vector<std::size_t> axes;
  for (const index_t axis : order) axes.push_back(axis_of(axis, x.shape().size()));
  std::vector<std::size_t> sorted = axes;
  std::sort(sorted.begin(), sorted.end());
  ATTN_ASSERT(sorted.size() == x.shape().size() && std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end());
  return permute_axes(x, axes);
}

template <class T>
Tensor<T> swap_axes(const Tensor<T>& x, index_t a, index_t b) {
  std::vector<std::size_t> order(x.shape().size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::swap(order[axis_of(a, order.size())], order[axis_of(b, order.size())]);
  return permute_axes(x, order);
}

template <class T>
Tensor<T> transpose(const Tensor<T>& x) {
  return permute_axes(x, last_two_swapped(x.rank()));
}

template <class T>
Tensor<T> broadcast_to(const Tensor<T>& x, const Shape& shape) {
  return record(detail::broadcast_array(x.array(), shape),
                {edge(x, [back = x.shape()](const Tensor<T>& g) { return sum_to(g, back); })});
}

template <class T>
Tensor<T> repeat(const Tensor<T>& x, index_t axis, index_t times) {
  const std::size_t a = axis_of(axis, x.shape().size());
  Shape wide = x.shape();
  wide.insert(wide.begin() + static_cast<Shape::difference_type>(a) + 1, times);
  const auto next = static_cast<index_t>(a) + 1;
  return reshape(broadcast_to(unsqueeze(x, next), wide), with_extent(x.shape(), axis, x.extent(axis) * times));
}

template <class T>
Tensor<T> tile(const Tensor<T>& x, index_t axis, index_t times) {
  return concat(std::vector<Tensor<T>>(static_cast<std::size_t>(times), x), axis);
}

template <class T>
Tensor<T> slice(const Tensor<T>& x, index_t axis, index_t begin, index_t end, index_t step) {
  const index_t extent = x.extent(axis);
  if (begin < 0) begin += extent;
  if (end < 0) end += extent;
  ATTN_ASSERT(0 <= begin && begin <= end && end <= extent && step >= 1);
  return slice_window(x, window(x.shape(), axis, begin, (end - begin + step - 1) / step, step));
}

template <class T>
Tensor<T> slice_from(const Tensor<T>& x, index_t axis, index_t begin) {
  return slice(x, axis, begin, x.extent(axis));
}

template <class T>
Tensor<T> flip(const Tensor<T>& x, index_t axis) {
  return slice_window(x, window(x.shape(), axis, std::max<index_t>(x.extent(axis) - 1, 0), x.extent(axis), -1));
}

template <class T>
std::vector<Tensor<T>> split_at(const Tensor<T>& x, index_t axis, const std::vector<index_t>& extents) {
  std::vector<Tensor<T>> parts;
  index_t begin = 0;
  for (const index_t extent : extents) {
    parts.push_back(slice(x, axis, begin, begin + extent));
    begin += extent;
  }
  ATTN_ASSERT(begin == x.extent(axis));
  return parts;
}

template <class T>
Tensor<T> concat(const std::vector<Tensor<T>>& parts, index_t axis) {
  ATTN_ASSERT(!parts.empty());
  index_t total = 0;
  for (const Tensor<T>& part : parts) total += part.extent(axis);
  Elements<T> out(with_extent(parts[0].shape(), axis, total));
  std::vector<Edge<T>> edges;
  index_t begin = 0;
  for (const Tensor<T>& part : parts) {
    const Window w = window(out.shape(), axis, begin, part.extent(axis), 1);
    write(out.writable(), w, part.array(), [](T& to, T value) { to = value; });
    edges.push_back(edge(part, [w](const Tensor<T>& g) { return Tensor<T>(read(g.array(), w)); }));
    begin += part.extent(axis);
  }
  return record(std::move(out), std::move(edges));
}

template <class T>
Tensor<T> stack(const std::vector<Tensor<T>>& parts, index_t axis) {
  std::vector<Tensor<T>> rows;
  for (const Tensor<T>& part : parts) rows.push_back(unsqueeze(part, axis));
  return concat(rows, axis);
}

template <class T>
Tensor<T> pad(const Tensor<T>& x, index_t axis, index_t before, index_t after, double value) {
  ATTN_ASSERT(before >= 0 && after >= 0);
  if (before == 0 && after == 0) return x;
  const auto border = [&](index_t extent) { return full<T>(with_extent(x.shape(), axis, extent), static_cast<T>(value)); };
  return concat<T>({border(before), x, border(after)}, axis);
}

template <class T>
Tensor<T> shift(const Tensor<T>& x, index_t axis, index_t by) {
  const index_t extent = x.extent(axis);
  by = std::clamp(by, -extent, extent);
  return by >= 0 ? pad(slice(x, axis, 0, extent - by), axis, by, 0) : pad(slice(x, axis, -by, extent), axis, 0, -by);
}

Mask transpose(const Mask& mask) { return detail::permute_array(mask, last_two_swapped(mask.rank())); }

Mask broadcast_to(const Mask& mask, const Shape& shape) { return detail::broadcast_array(mask, shape); }

#define ATTN_INSTANTIATE(T)                                                                         \
  template Tensor<T> reshape(const Tensor<T>&, Shape);                                              \
  template Tensor<T> unsqueeze(const Tensor<T>&, index_t);                                          \
  template Tensor<T> squeeze(const Tensor<T>&, index_t);                                            \
  template Tensor<T> flatten(const Tensor<T>&, index_t, index_t);                                   \
  template Tensor<T> permute(const Tensor<T>&, const std::vector<index_t>&);                        \
  template Tensor<T> swap_axes(const Tensor<T>&, index_t, index_t);                                 \
  template Tensor<T> transpose(const Tensor<T>&);                                                   \
  template Tensor<T> broadcast_to(const Tensor<T>&, const Shape&);                                  \
  template Tensor<T> repeat(const Tensor<T>&, index_t, index_t);                                    \
  template Tensor<T> tile(const Tensor<T>&, index_t, index_t);                                      \
  template Tensor<T> slice(const Tensor<T>&, index_t, index_t, index_t, index_t);                   \
  template Tensor<T> slice_from(const Tensor<T>&, index_t, index_t);                                \
  template Tensor<T> flip(const Tensor<T>&, index_t);                                               \
  template std::vector<Tensor<T>> split_at(const Tensor<T>&, index_t, const std::vector<index_t>&); \
  template Tensor<T> concat(const std::vector<Tensor<T>>&, index_t);                                \
  template Tensor<T> stack(const std::vector<Tensor<T>>&, index_t);                                 \
  template Tensor<T> pad(const Tensor<T>&, index_t, index_t, index_t, double);                      \
  template Tensor<T> shift(const Tensor<T>&, index_t, index_t);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
