#include "attn/inputs/array.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "attn/core/text.hpp"

namespace attn {

static_assert(std::endian::native == std::endian::little, "files are read by copying little-endian numbers");

std::size_t element_bytes(Element element) {
  switch (element) {
    case Element::f16:
    case Element::bf16: return 2;
    case Element::f32: return 4;
    case Element::f64: return 8;
  }
  return 0;
}

std::optional<std::size_t> array_bytes(Element element, std::span<const index_t> shape) {
  auto bytes = static_cast<index_t>(element_bytes(element));
  for (const index_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes)) return {};
  }
  return static_cast<std::size_t>(bytes);
}

std::string shape_text(std::span<const index_t> shape) {
  std::vector<std::string> extents;
  for (const index_t extent : shape) extents.push_back(std::to_string(extent));
  return "[" + join(extents, ",") + "]";
}

float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t{half & 0x8000u} << 16;
  const std::uint32_t rest = half & 0x7fffu;
  if (rest >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13);  // infinite, not a number
  if (rest < 0x400u) return std::copysign(static_cast<float>(rest) * 0x1.0p-24f, std::bit_cast<float>(sign));  // subnormal
  return std::bit_cast<float>(sign | ((rest << 13) + 0x38000000u));  // exponent bias 127 - 15
}

float bfloat_to_float(std::uint16_t bfloat) { return std::bit_cast<float>(std::uint32_t{bfloat} << 16); }

namespace {

template <class Stored, class Convert>
void read(const StoredArray& array, index_t first, std::span<float> out, Convert convert) {
  const std::byte* from = array.data.data() + static_cast<std::size_t>(first) * sizeof(Stored);
  for (std::size_t i = 0; i < out.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, from + i * sizeof stored, sizeof stored);
    out[i] = convert(stored);
  }
}

}  // namespace

void read_floats(const StoredArray& array, index_t first, std::span<float> out) {
  ATTN_ASSERT(first >= 0 && (static_cast<std::size_t>(first) + out.size()) * element_bytes(array.element) <= array.data.size());
  switch (array.element) {
    case Element::f16: return read<std::uint16_t>(array, first, out, half_to_float);
    case Element::bf16: return read<std::uint16_t>(array, first, out, bfloat_to_float);
    case Element::f32: return read<float>(array, first, out, [](float x) { return x; });
    case Element::f64: return read<double>(array, first, out, [](double x) { return static_cast<float>(x); });
  }
}

}  // namespace attn
