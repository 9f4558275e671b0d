// Owned memory straight from the system: page-aligned, zeroed, untouched until used, so that resident memory shows
// what is really written.
#pragma once

#include <cstddef>
#include <utility>

#include "attn/core/problem.hpp"

namespace attn {

// Throws std::bad_alloc when the system refuses. Buffers of 4 MiB and more ask for huge pages.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace attn
