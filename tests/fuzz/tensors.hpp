// What must hold of an array that a container's parser accepts.
#pragma once

#include <vector>

#include "attn/core/assert.hpp"
#include "attn/inputs/tensor_files.hpp"

inline void use_array(const attn::StoredArray& array) {
  using namespace attn;
  const auto bytes = array_bytes(array.element, array.shape);
  ATTN_ASSERT(bytes && *bytes == array.data.size());
  const std::size_t count = static_cast<std::size_t>(attn::element_count(array.shape));
  std::vector<float> values(count);
  read_floats(array, 0, values);

  for (const std::optional<index_t> layer : {std::optional<index_t>{}, std::optional<index_t>{1}}) {
    const auto input = open_tensors("fuzz", {}, {NamedArray{"q", array}, {"k", array}, {"v", array}}, layer);
    if (!input || count > 65536) continue;
    const auto shape = (*input)->shape();
    ATTN_ASSERT(shape && (*input)->adapt(*shape));
    if (const auto tensors = (*input)->make(*shape, 1)) ATTN_ASSERT(tensors->q.size() <= static_cast<index_t>(count));
  }
}
