// Number types of stored tensors. One entry here names a type everywhere: flags, keys, CSV.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "attn/core/result.hpp"

namespace attn {

using index_t = std::int64_t;

enum class DType { f32 };

std::string_view to_string(DType dtype);
Result<DType> parse_dtype(std::string_view name);

// Bytes of so many elements in a row.
index_t bytes_of(DType dtype, index_t count);

}  // namespace attn
