// A tensor inside a file's bytes: row-major, little-endian, of one of four number types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

namespace attn {

enum class Element { f16, bf16, f32, f64 };

std::size_t element_bytes(Element element);

struct StoredArray {
  Element element = Element::f32;
  std::vector<index_t> shape;
  std::span<const std::byte> data;  // exactly the elements; any alignment
};

// Bytes of such an array; nothing where they do not fit 63 bits or an extent is negative.
std::optional<std::size_t> array_bytes(Element element, std::span<const index_t> shape);

std::string shape_text(std::span<const index_t> shape);  // "[8,1024,64]"

// IEEE 754 binary16 and bfloat16; every value is exact in float.
float half_to_float(std::uint16_t half);
float bfloat_to_float(std::uint16_t bfloat);

// Elements first .. first+out.size()-1 as floats; f64 is rounded.
void read_floats(const StoredArray& array, index_t first, std::span<float> out);

}  // namespace attn
