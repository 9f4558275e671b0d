// A tensor inside a file's bytes: row-major, little-endian, of one of these number types.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

namespace attn {

enum class Element { f16, bf16, f32, f64, q8, boolean };  // q8: rows of whole blocks of 32

struct StoredArray {
  Element element = Element::f32;
  std::vector<index_t> shape;
  std::span<const std::byte> data;  // exactly the elements; any alignment
  std::size_t at_byte = 0;          // where these begin in the file, or in the member of an archive
  std::shared_ptr<const std::vector<std::byte>> inflated = nullptr;  // what they lie in, where they were compressed
};

// Bytes of such an array; nothing where they do not fit 63 bits, an extent is negative or rows are no whole blocks.
std::optional<std::size_t> array_bytes(Element element, std::span<const index_t> shape);

index_t element_count(std::span<const index_t> shape);   // of an array that has bytes
std::string shape_text(std::span<const index_t> shape);  // "[8,1024,64]"

// Elements first .. first+out.size()-1 as floats, whole blocks of them; f64 is rounded, true is 1.
void read_floats(const StoredArray& array, index_t first, std::span<float> out);

}  // namespace attn
