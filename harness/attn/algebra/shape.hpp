// Shapes, axes and NumPy's broadcasting rule.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "attn/core/problem.hpp"

namespace attn {

using Shape = std::vector<index_t>;

index_t volume(const Shape& shape);
Shape row_major_strides(const Shape& shape);

// Negative axes count from the end. Asserts that the axis exists.
std::size_t axis_of(index_t axis, std::size_t rank);

// Shapes align at the last axis; an extent of 1, or none, stretches. Asserts that the others agree.
Shape broadcast_shapes(const Shape& a, const Shape& b);
Shape broadcast_strides(const Shape& from, const Shape& to);

// The shape with one extent replaced, or with one axis put in or taken out.
Shape with_extent(Shape shape, index_t axis, index_t extent);
Shape with_axis(Shape shape, index_t axis, index_t extent);
Shape without_axis(Shape shape, index_t axis);

// Fills in the one extent that may be given as -1. Asserts that the count is kept.
Shape resolve(Shape shape, index_t count);

std::string to_string(const Shape& shape);

}  // namespace attn
