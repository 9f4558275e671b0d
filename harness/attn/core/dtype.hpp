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

enum class DType { f32, bf16, f16, q8 };

// The upper half of a float: its exponents, 8 bits of precision.
struct bf16 {
  std::uint16_t bits;
};
// IEEE 754 binary16: 11 bits of precision, at most 65504, normal from 2^-14.
struct f16 {
  std::uint16_t bits;
};
// 32 values that share a scale: value i is scale * values[i] (ggml's q8_0).
struct q8 {
  static constexpr std::int64_t count = 32;
  f16 scale;
  std::int8_t values[count];
};
static_assert(sizeof(bf16) == 2 && sizeof(f16) == 2 && sizeof(q8) == 34);

// To nearest, ties to even; denormals are kept; a NaN stays one; beyond the type's largest number comes infinity.
bf16 to_bf16(float value);
f16 to_f16(float value);
float to_float(bf16 value);
float to_float(f16 value);

std::string_view to_string(DType dtype);
Result<DType> parse_dtype(std::string_view name);

// Bytes of so many elements in a row.
index_t bytes_of(DType dtype, index_t count);

// Twice the largest relative error of rounding to this type, and the least number that has all its digits.
double epsilon_of(DType dtype);
double least_normal_of(DType dtype);

// The type of an element (of q8: of a block) in memory.
template <class T>
inline constexpr DType dtype_of = [] {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, bf16> || std::is_same_v<T, f16> || std::is_same_v<T, q8>,
                "no dtype is stored as this type");
  if (std::is_same_v<T, bf16>) return DType::bf16;
  if (std::is_same_v<T, f16>) return DType::f16;
  if (std::is_same_v<T, q8>) return DType::q8;
  return DType::f32;
}();

}  // namespace attn
