#include "attn/algebra/shape.hpp"

#include <algorithm>

#include "attn/core/assert.hpp"

namespace attn {
namespace {

using Offset = Shape::difference_type;

}  // namespace

index_t volume(const Shape& shape) {
  index_t count = 1;
  for (const index_t extent : shape) count *= extent;
  return count;
}

Shape row_major_strides(const Shape& shape) {
  Shape strides(shape.size());
  index_t stride = 1;
  for (std::size_t r = shape.size(); r-- > 0;) {
    strides[r] = stride;
    stride *= shape[r];
  }
  return strides;
}

std::size_t axis_of(index_t axis, std::size_t rank) {
  const auto signed_rank = static_cast<index_t>(rank);
  ATTN_ASSERT(-signed_rank <= axis && axis < signed_rank);
  return static_cast<std::size_t>(axis < 0 ? axis + signed_rank : axis);
}

Shape broadcast_shapes(const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape shape = longer;
  const std::size_t lead = longer.size() - shorter.size();
  for (std::size_t r = 0; r < shorter.size(); ++r) {
    index_t& extent = shape[lead + r];
    ATTN_ASSERT(extent == shorter[r] || extent == 1 || shorter[r] == 1);
    if (extent == 1) extent = shorter[r];
  }
  return shape;
}

Shape broadcast_strides(const Shape& from, const Shape& to) {
  ATTN_ASSERT(from.size() <= to.size());
  const Shape own = row_major_strides(from);
  Shape strides(to.size(), 0);
  const std::size_t lead = to.size() - from.size();
  for (std::size_t r = 0; r < from.size(); ++r) {
    ATTN_ASSERT(from[r] == to[lead + r] || from[r] == 1);
    strides[lead + r] = from[r] == 1 ? 0 : own[r];
  }
  return strides;
}

Shape with_extent(Shape shape, index_t axis, index_t extent) {
  shape[axis_of(axis, shape.size())] = extent;
  return shape;
}

Shape with_axis(Shape shape, index_t axis, index_t extent) {
  shape.insert(shape.begin() + static_cast<Offset>(axis_of(axis, shape.size() + 1)), extent);
  return shape;
}

Shape without_axis(Shape shape, index_t axis) {
  shape.erase(shape.begin() + static_cast<Offset>(axis_of(axis, shape.size())));
  return shape;
}

Shape resolve(Shape shape, index_t count) {
  const auto open = std::find(shape.begin(), shape.end(), index_t{-1});
  if (open != shape.end()) {
    *open = 1;
    const index_t rest = volume(shape);
    ATTN_ASSERT(rest > 0 && count % rest == 0);
    *open = count / rest;
  }
  ATTN_ASSERT(volume(shape) == count);
  return shape;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (std::size_t r = 0; r < shape.size(); ++r) text += (r == 0 ? "" : ",") + std::to_string(shape[r]);
  return text + "]";
}

}  // namespace attn
