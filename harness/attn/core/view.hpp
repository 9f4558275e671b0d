// A non-owning, strided window on memory, in mdspan's vocabulary. Strides count elements, not bytes.
#pragma once

#include <array>
#include <cstddef>
#include <type_traits>

#include "attn/core/assert.hpp"
#include "attn/core/problem.hpp"

namespace attn {

template <class T, std::size_t R>
class View {
 public:
  using element_type = T;
  using Extents = std::array<index_t, R>;

  View() = default;

  // Row-major: the last extent is contiguous.
  View(T* data, const Extents& extents) : data_(data), extents_(extents) {
    index_t stride = 1;
    for (std::size_t r = R; r-- > 0;) {
      strides_[r] = stride;
      stride *= extents_[r];
    }
  }

  View(T* data, const Extents& extents, const Extents& strides) : data_(data), extents_(extents), strides_(strides) {}

  // View<float> converts to View<const float>.
  template <class U>
  requires(std::is_same_v<const U, T> && !std::is_same_v<U, T>) View(const View<U, R>& other)
      : data_(other.data_handle()), extents_(other.extents()), strides_(other.strides()) {}

  T* data_handle() const { return data_; }
  const Extents& extents() const { return extents_; }
  const Extents& strides() const { return strides_; }
  index_t extent(std::size_t r) const { return extents_[r]; }
  index_t stride(std::size_t r) const { return strides_[r]; }

  index_t size() const {
    index_t count = 1;
    for (const index_t extent : extents_) count *= extent;
    return count;
  }

  template <class... I>
  requires(sizeof...(I) == R) T& operator()(I... indices) const {
    std::size_t r = 0;
    index_t offset = 0;
    ((offset += static_cast<index_t>(indices) * strides_[r++]), ...);
    return data_[offset];
  }

  // The window at index i of the first extent: view[b][h] of [B,H,N,D] is [N,D].
  auto operator[](index_t i) const requires(R >= 2) {
    std::array<index_t, R - 1> extents{};
    std::array<index_t, R - 1> strides{};
    for (std::size_t r = 1; r < R; ++r) {
      extents[r - 1] = extents_[r];
      strides[r - 1] = strides_[r];
    }
    return View<T, R - 1>(data_ + i * strides_[0], extents, strides);
  }

  // Rows of a matrix: pointer to the first element of row i. Kernels need the last stride to be 1.
  T* row(index_t i) const requires(R == 2) { return data_ + i * strides_[0]; }

 private:
  T* data_ = nullptr;
  Extents extents_{};
  Extents strides_{};
};

}  // namespace attn
