#include "attn/core/dtype.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "attn/core/assert.hpp"

namespace attn {

namespace {

// Elements of a type that is no block, one by one.
template <class T>
void round_each(const float* from, index_t count, T (*round)(float), void* to) {
  for (index_t i = 0; i < count; ++i) static_cast<T*>(to)[i] = round(from[i]);
}
template <class T>
void widen_each(const void* from, index_t count, float* to) {
  for (index_t i = 0; i < count; ++i) to[i] = to_float(static_cast<const T*>(from)[i]);
}

}  // namespace

Result<DType> parse_dtype(std::string_view name) {
  for (const DTypeFacts& facts : dtype_table) {
    if (facts.name == name) return facts.dtype;
  }
  return refuse("'" + std::string(name) + "' is no dtype; accepted: " + dtype_names(false));
}

std::string dtype_names(bool of_queries) {
  std::string names;
  for (const DTypeFacts& facts : dtype_table) {
    if (facts.of_queries || !of_queries) names += (names.empty() ? "" : ", ") + std::string(facts.name);
  }
  return names;
}

bf16 to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return {static_cast<std::uint16_t>(bits >> 16 | 0x40)};  // quiet, so that no payload rounds to infinity
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

float to_float(bf16 value) { return std::bit_cast<float>(std::uint32_t{value.bits} << 16); }

f16 to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = bits >> 16 & 0x8000;
  const float size = std::fabs(value);
  if (std::isnan(value)) return {static_cast<std::uint16_t>(sign | 0x7e00)};
  if (size >= 65520.0f) return {static_cast<std::uint16_t>(sign | 0x7c00)};
  // A float near 1/2 has units of 2^-24, as f16's denormals do: the sum rounds there.
  if (size < 0x1p-14f) return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(size + 0.5f) - 0x3f000000))};
  const std::uint32_t rounded = (bits & 0x7fffffff) + 0xfff + (bits >> 13 & 1);
  return {static_cast<std::uint16_t>(sign | ((rounded >> 13) - ((127 - 15) << 10)))};
}

float to_float(f16 value) {
  const std::uint32_t sign = std::uint32_t{value.bits & 0x8000u} << 16, rest = value.bits & 0x7fffu;
  if (rest >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | ((rest & 0x3ff) << 13));
  if (rest >= 0x400) return std::bit_cast<float>(sign | ((rest << 13) + ((127 - 15) << 23)));
  const float size = static_cast<float>(rest) * 0x1p-24f;
  return sign != 0 ? -size : size;
}

q8 to_q8(const float* values) {
  float largest = 0;
  bool finite = true;
  for (index_t i = 0; i < q8::count; ++i) {
    finite = finite && std::isfinite(values[i]);
    largest = std::max(largest, std::fabs(values[i]));
  }
  const float scale = largest / 127;
  q8 block{to_f16(finite ? scale : std::numeric_limits<float>::quiet_NaN()), {}};
  const float factor = finite && scale > 0 ? 1 / scale : 0;  // of denormal values it may be infinite
  for (index_t i = 0; i < q8::count; ++i) {
    const float whole = std::round(values[i] * factor);
    block.values[i] = std::fabs(whole) <= 127 ? static_cast<std::int8_t>(whole) : std::int8_t{0};
  }
  return block;
}

void to_floats(const q8& block, float* values) {
  const float scale = to_float(block.scale);
  for (index_t i = 0; i < q8::count; ++i) values[i] = scale * static_cast<float>(block.values[i]);
}

void round_row(const float* from, index_t count, DType dtype, void* to) {
  ATTN_ASSERT(count % block_of(dtype) == 0);
  switch (dtype) {
    case DType::f32: std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float)); return;
    case DType::bf16: return round_each<bf16>(from, count, to_bf16, to);
    case DType::f16: return round_each<f16>(from, count, to_f16, to);
    case DType::q8:
      for (index_t i = 0; i < count; i += q8::count) static_cast<q8*>(to)[i / q8::count] = to_q8(from + i);
  }
}

void widen_row(DType dtype, const void* from, index_t count, float* to) {
  ATTN_ASSERT(count % block_of(dtype) == 0);
  switch (dtype) {
    case DType::f32: std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float)); return;
    case DType::bf16: return widen_each<bf16>(from, count, to);
    case DType::f16: return widen_each<f16>(from, count, to);
    case DType::q8:
      for (index_t i = 0; i < count; i += q8::count) to_floats(static_cast<const q8*>(from)[i / q8::count], to + i);
  }
}

}  // namespace attn
