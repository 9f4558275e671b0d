#include "attn/inputs/array.hpp"

#include <bit>
#include <cstring>

#include "attn/core/text.hpp"

namespace attn {

static_assert(std::endian::native == std::endian::little, "files are read by copying little-endian numbers");

namespace {

struct Layout {
  index_t elements, bytes;  // so many elements take so many bytes
};

Layout layout_of(Element element) {
  switch (element) {
    case Element::f16:
    case Element::bf16: return {1, 2};
    case Element::f32: return {1, 4};
    case Element::f64: return {1, 8};
    case Element::q8: return {q8::count, sizeof(q8)};
    case Element::boolean: return {1, 1};
  }
  return {1, 0};
}

}  // namespace

std::optional<std::size_t> array_bytes(Element element, std::span<const index_t> shape) {
  const auto [elements, bytes] = layout_of(element);
  index_t count = 1;
  for (const index_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(count, extent, &count)) return {};
  }
  if (elements > 1 && (shape.empty() || shape.back() % elements != 0)) return {};
  index_t all = 0;
  if (__builtin_mul_overflow(count / elements, bytes, &all)) return {};
  return static_cast<std::size_t>(all);
}

index_t element_count(std::span<const index_t> shape) {
  index_t count = 1;
  for (const index_t extent : shape) count *= extent;
  return count;
}

std::string shape_text(std::span<const index_t> shape) {
  std::vector<std::string> extents;
  for (const index_t extent : shape) extents.push_back(std::to_string(extent));
  return "[" + join(extents, ",") + "]";
}

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
  const auto [elements, bytes] = layout_of(array.element);
  ATTN_ASSERT(first >= 0 && first % elements == 0 && std::ssize(out) % elements == 0 &&
              (first + std::ssize(out)) / elements * bytes <= std::ssize(array.data));
  switch (array.element) {
    case Element::f16: return read<f16>(array, first, out, [](f16 x) { return to_float(x); });
    case Element::bf16: return read<bf16>(array, first, out, [](bf16 x) { return to_float(x); });
    case Element::f32: return read<float>(array, first, out, [](float x) { return x; });
    case Element::f64: return read<double>(array, first, out, [](double x) { return static_cast<float>(x); });
    case Element::boolean: return read<std::uint8_t>(array, first, out, [](std::uint8_t x) { return x != 0 ? 1.0f : 0.0f; });
    case Element::q8:
      for (index_t i = 0; i < std::ssize(out); i += q8::count) {
        q8 block;
        std::memcpy(&block, array.data.data() + (first + i) / q8::count * static_cast<index_t>(sizeof block), sizeof block);
        to_floats(block, out.data() + i);
      }
  }
}

}  // namespace attn
