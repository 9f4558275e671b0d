// Tensors of every number type for tests of kernels, strided, with NaN between their rows, and the floats that they stand for.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "attn/core/array.hpp"
#include "attn/core/dtype.hpp"
#include "attn/core/round.hpp"

namespace attn::kernels::test {

class Stored {
 public:
  // `values` row by row, of the extents' last so many each. Rows lie `gap` elements apart (of q8, whole blocks).
  Stored(DType dtype, const std::vector<float>& values, const std::array<index_t, 4>& extents, index_t gap = 3)
      : dtype_(dtype), extents_(extents), stride_(dtype == DType::q8 ? round_up(extents[3] + gap, q8::count) : extents[3] + gap) {
    const index_t rows = extents[0] * extents[1] * extents[2], row_bytes = bytes_of(dtype, stride_);
    bytes_.assign(static_cast<std::size_t>(rows * row_bytes), std::byte{0xff});
    floats_.assign(static_cast<std::size_t>(rows * stride_), std::numeric_limits<float>::quiet_NaN());
    for (index_t i = 0; i < rows; ++i)
      round_row(values.data() + i * extents[3], bytes_.data() + i * row_bytes, floats_.data() + i * stride_);
  }

  Array array() const {
    switch (dtype_) {
      case DType::f32: return view<float>(bytes_.data());
      case DType::bf16: return view<bf16>(bytes_.data());
      case DType::f16: return view<f16>(bytes_.data());
      case DType::q8: {
        const auto& e = extents_;
        const std::array<index_t, 4> strides = {e[1] * e[2] * stride_, e[2] * stride_, stride_, 1};
        return {dtype_, const_cast<std::byte*>(bytes_.data()), e, strides};
      }
    }
    return {};
  }
  Array widened() const { return view<float>(reinterpret_cast<const std::byte*>(floats_.data())); }

 private:
  template <class T>
  View<const T, 4> view(const std::byte* data) const {
    const auto& e = extents_;
    return {reinterpret_cast<const T*>(data), e, {e[1] * e[2] * stride_, e[2] * stride_, stride_, 1}};
  }

  template <class T>
  void put(std::byte* to, T value, float& widened, float as_float) const {
    std::memcpy(to, &value, sizeof value);
    widened = as_float;
  }

  void round_row(const float* values, std::byte* to, float* widened) const {
    const index_t width = extents_[3];
    if (dtype_ == DType::q8) return round_blocks(values, to, widened);
    for (index_t x = 0; x < width; ++x) {
      std::byte* const at = to + bytes_of(dtype_, x);
      if (dtype_ == DType::f32) put(at, values[x], widened[x], values[x]);
      if (dtype_ == DType::bf16) put(at, to_bf16(values[x]), widened[x], to_float(to_bf16(values[x])));
      if (dtype_ == DType::f16) put(at, to_f16(values[x]), widened[x], to_float(to_f16(values[x])));
    }
  }

  void round_blocks(const float* values, std::byte* to, float* widened) const {
    const index_t width = extents_[3];
    for (index_t x = 0; x < width; x += q8::count, to += sizeof(q8)) {
      const index_t count = std::min(q8::count, width - x);
      float top = 0;
      for (index_t i = 0; i < count; ++i) top = std::max(top, std::fabs(values[x + i]));
      q8 block = {};
      block.scale = to_f16(top / 127);
      const float scale = to_float(block.scale);
      for (index_t i = 0; i < count; ++i) {
        const float quotient = scale > 0 ? values[x + i] / scale : 0;
        block.values[i] = static_cast<std::int8_t>(std::lround(std::clamp(quotient, -127.0f, 127.0f)));
        widened[x + i] = scale * static_cast<float>(block.values[i]);
      }
      std::memcpy(to, &block, sizeof block);
    }
  }

  DType dtype_;
  std::array<index_t, 4> extents_;
  index_t stride_;
  std::vector<std::byte> bytes_;
  std::vector<float> floats_;
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace attn::kernels::test
