// The one loop under broadcasting, permuting, slicing and summing. Internal to this floor.
#pragma once

#include <array>
#include <tuple>
#include <utility>

#include "attn/algebra/elements.hpp"

namespace attn::detail {

// Visits `extents` in row-major order as runs: body(offsets, steps, count) for K operands, each addressed by its own
// strides. Axes that are contiguous with each other for every operand are merged, so runs are as long as they can be.
template <std::size_t K, class Body>
void for_each_run(const Shape& extents, const std::array<Shape, K>& strides, Body body) {
  if (volume(extents) == 0) return;

  Shape merged;
  std::array<Shape, K> steps;
  for (std::size_t r = extents.size(); r-- > 0;) {
    if (extents[r] == 1) continue;
    bool joins = !merged.empty();
    for (std::size_t k = 0; k < K && joins; ++k) joins = strides[k][r] == steps[k].back() * merged.back();
    if (joins) {
      merged.back() *= extents[r];
    } else {
      merged.push_back(extents[r]);
      for (std::size_t k = 0; k < K; ++k) steps[k].push_back(strides[k][r]);
    }
  }
  if (merged.empty()) {
    merged.push_back(1);
    for (auto& step : steps) step.push_back(1);
  }

  // Innermost axis first from here on.
  std::array<index_t, K> inner{};
  for (std::size_t k = 0; k < K; ++k) inner[k] = steps[k][0];
  std::array<index_t, K> offsets{};
  Shape index(merged.size(), 0);
  for (;;) {
    body(std::as_const(offsets), std::as_const(inner), merged[0]);
    std::size_t r = 1;
    for (; r < merged.size(); ++r) {
      for (std::size_t k = 0; k < K; ++k) offsets[k] += steps[k][r];
      if (++index[r] < merged[r]) break;
      for (std::size_t k = 0; k < K; ++k) offsets[k] -= steps[k][r] * merged[r];
      index[r] = 0;
    }
    if (r == merged.size()) return;
  }
}

inline Shape broadcast_all(const Shape& shape) { return shape; }

template <class... S>
Shape broadcast_all(const Shape& first, const S&... rest) {
  return broadcast_shapes(first, broadcast_all(rest...));
}

// f over the elements of the inputs, broadcast against each other.
template <class R, class F, class... E>
Elements<R> map(F f, const Elements<E>&... inputs) {
  constexpr std::size_t count_inputs = sizeof...(E);
  Elements<R> result(broadcast_all(inputs.shape()...));
  const std::array<Shape, count_inputs> strides{broadcast_strides(inputs.shape(), result.shape())...};
  const std::tuple<const E*...> data{inputs.data()...};
  R* out = result.writable();
  for_each_run(result.shape(), strides, [&](const auto& offsets, const auto& steps, index_t count) {
    [&]<std::size_t... K>(std::index_sequence<K...>) {
      const std::tuple<const E*...> in{std::get<K>(data) + offsets[K]...};
      if (((steps[K] == 1) && ...)) {
        for (index_t i = 0; i < count; ++i) out[i] = f(std::get<K>(in)[i]...);
      } else {
        for (index_t i = 0; i < count; ++i) out[i] = f(std::get<K>(in)[i * steps[K]]...);
      }
    }
    (std::make_index_sequence<count_inputs>());
    out += count;
  });
  return result;
}

// The elements data[offset + i.strides], copied into a fresh array of this shape.
template <class E>
Elements<E> copy_strided(Shape shape, const E* data, Shape strides) {
  Elements<E> result(std::move(shape));
  E* out = result.writable();
  for_each_run<1>(result.shape(), {std::move(strides)}, [&](const auto& offsets, const auto& steps, index_t count) {
    const E* in = data + offsets[0];
    if (steps[0] == 1) {
      std::copy(in, in + count, out);
    } else {
      for (index_t i = 0; i < count; ++i) out[i] = in[i * steps[0]];
    }
    out += count;
  });
  return result;
}

template <class E>
Elements<E> broadcast_array(const Elements<E>& a, const Shape& shape) {
  return a.shape() == shape ? a : copy_strided(shape, a.data(), broadcast_strides(a.shape(), shape));
}

template <class E>
Elements<E> permute_array(const Elements<E>& a, const std::vector<std::size_t>& order) {
  const Shape own = row_major_strides(a.shape());
  Shape shape;
  Shape strides;
  for (const std::size_t axis : order) {
    shape.push_back(a.shape()[axis]);
    strides.push_back(own[axis]);
  }
  return copy_strided(std::move(shape), a.data(), std::move(strides));
}

}  // namespace attn::detail
