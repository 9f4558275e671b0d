// Number types of stored tensors. One entry of dtype_table names a type everywhere: flags, keys, CSV.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
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

// What there is to know of each type, in the order of DType: all that is said of types elsewhere is read here.
struct DTypeFacts {
  DType dtype;
  std::string_view name;
  index_t elements, bytes;  // so many elements share a block of so many bytes: rows are of whole blocks, parts of rows begin with one
  bool of_queries;          // or of keys and values alone
  double epsilon;           // twice the largest relative error of rounding to it
  double least_normal;      // the least number that has all its digits
  double largest;           // number
};
inline constexpr std::array dtype_table = {
    DTypeFacts{DType::f32, "f32", 1, sizeof(float), true, 0x1p-23, 0x1p-126, std::numeric_limits<float>::max()},
    DTypeFacts{DType::bf16, "bf16", 1, sizeof(bf16), true, 0x1p-7, 0x1p-126, 0x1.fep127},
    DTypeFacts{DType::f16, "f16", 1, sizeof(f16), true, 0x1p-10, 0x1p-14, 65504},
    // A block's largest value is 127 scales, so its rounding is at most 1/254 of that.
    DTypeFacts{DType::q8, "q8", q8::count, sizeof(q8), false, 0x1p-6, 0x1p-14, 127 * 65504},
};
constexpr const DTypeFacts& facts_of(DType dtype) { return dtype_table[static_cast<std::size_t>(dtype)]; }
static_assert(std::ranges::all_of(dtype_table, [](const DTypeFacts& facts) { return &facts == &facts_of(facts.dtype); }));

// All of them, which keys and values are of; and those that queries are of.
inline constexpr auto stored_dtypes = [] {
  std::array<DType, dtype_table.size()> all{};
  std::ranges::transform(dtype_table, all.begin(), &DTypeFacts::dtype);
  return all;
}();
inline constexpr auto query_dtypes = [] {
  std::array<DType, std::ranges::count_if(dtype_table, &DTypeFacts::of_queries)> some{};
  std::ranges::copy_if(stored_dtypes, some.begin(), [](DType dtype) { return facts_of(dtype).of_queries; });
  return some;
}();

constexpr std::string_view to_string(DType dtype) { return facts_of(dtype).name; }
Result<DType> parse_dtype(std::string_view name);
// "f32, bf16, f16": those of queries, or those of keys and values.
std::string dtype_names(bool of_queries);

// Asked a dozen times for each block of queries: a block of four takes 3 % longer with a call, or a division, at each (strided, N = 512, Zen 4).
constexpr index_t bytes_of(DType dtype, index_t count) {
  const DTypeFacts& facts = facts_of(dtype);
  if (facts.elements == 1) return count * facts.bytes;
  return (count + facts.elements - 1) / facts.elements * facts.bytes;
}
constexpr index_t block_of(DType dtype) { return facts_of(dtype).elements; }
constexpr double epsilon_of(DType dtype) { return facts_of(dtype).epsilon; }
constexpr double least_normal_of(DType dtype) { return facts_of(dtype).least_normal; }
constexpr double largest_of(DType dtype) { return facts_of(dtype).largest; }

// A row of `count` elements, a number of whole blocks, in another type. Serial and portable: a run goes through kernels::widen (machine/widen.hpp).
void round_row(const float* from, index_t count, DType dtype, void* to);
void widen_row(DType dtype, const void* from, index_t count, float* to);

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
