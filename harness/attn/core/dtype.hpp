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
// A block's scale is its largest size over 127, rounded to f16 after the values were divided by it, as ggml's is. Of 32 values; where one of
// them is not finite, or lies beyond 127 times f16's largest number, the scale is not finite.
q8 to_q8(const float* values);
void to_floats(const q8& block, float* values);

std::string_view to_string(DType dtype);
Result<DType> parse_dtype(std::string_view name);

// Bytes of so many elements in a row; and how many share a block: rows are of whole ones, parts of rows begin with one.
index_t bytes_of(DType dtype, index_t count);
index_t block_of(DType dtype);

// A row of `count` elements, a number of whole blocks, in another type. Serial and portable: a run goes through kernels::widen (machine/widen.hpp).
void round_row(const float* from, index_t count, DType dtype, void* to);
void widen_row(DType dtype, const void* from, index_t count, float* to);

// Twice the largest relative error of rounding to this type, and the least number that has all its digits.
double epsilon_of(DType dtype);
double least_normal_of(DType dtype);
double largest_of(DType dtype);  // number

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
template <class T>
inline constexpr index_t block_of_type = 1;
template <>
inline constexpr index_t block_of_type<q8> = q8::count;

}  // namespace attn
