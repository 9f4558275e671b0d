// Some rows of a problem as tensors, for comparisons that need not see them all.
#pragma once

#include <vector>

#include "attn/variant/registry.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// `count` row numbers in 0..rows-1, ascending: the first, the last, the rest spread pseudo-randomly.
std::vector<index_t> sampled_rows(index_t rows, index_t count);
std::vector<index_t> all_rows(index_t rows);

template <class T>
Tensor<T> take_rows(View<const float, 4> view, const std::vector<index_t>& rows) {
  return tabulate<T>({view.extent(0), view.extent(1), static_cast<index_t>(rows.size()), view.extent(3)},
                     [&](index_t b, index_t h, index_t r, index_t d) { return view(b, h, rows[static_cast<std::size_t>(r)], d); });
}

// Of any rank.
template <class T>
Tensor<T> to_tensor(const Array& array) {
  const auto extents = array.extents(), strides = array.strides();
  const float* const first = array.f32_data();
  return generate<T>(Shape(extents.begin(), extents.end()), [&](index_t i) {
    index_t at = 0;
    for (std::size_t axis = extents.size(); axis-- > 0; i /= extents[axis]) at += i % extents[axis] * strides[axis];
    return static_cast<T>(first[at]);
  });
}

template <class T>
Values<T> take_values(const Problem& p, const Arrays& in, const std::vector<index_t>& rows) {
  const AsFloats floats(in);
  const FloatArrays views = floats.views();
  Values<T> taken{take_rows<T>(views.q, rows), Tensor<T>::from(views.k), Tensor<T>::from(views.v), {}, {}};
  for (const auto& [name, array] : in.more) taken.more.emplace(name, to_tensor<T>(array));
  for (const index_t row : rows) taken.position.push_back(p.query_position(row));
  return taken;
}

}  // namespace attn
