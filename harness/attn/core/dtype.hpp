// Number types of stored tensors. One entry here names a type everywhere: flags, keys, CSV.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "attn/core/result.hpp"

namespace attn {

using index_t = std::int64_t;

enum class DType { f32 };

std::string_view to_string(DType dtype);
Result<DType> parse_dtype(std::string_view name);

// Of so many elements in a row.
index_t bytes_of(DType dtype, index_t count);

// Twice the largest relative error of rounding to this type, and the least number that has all its digits.
double epsilon_of(DType dtype);
double least_normal_of(DType dtype);

// The type of an element in memory.
template <class T>
inline constexpr DType dtype_of = [] {
  static_assert(std::is_same_v<T, float>, "no dtype is stored as this type");
  return DType::f32;
}();

}  // namespace attn
