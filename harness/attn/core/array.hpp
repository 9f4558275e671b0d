// Tensors as they cross a door: number type, extents and strides at run time, without ownership. Who reads or writes elements asks
// for a View of the type that they have.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "attn/core/assert.hpp"
#include "attn/core/dtype.hpp"
#include "attn/core/view.hpp"

namespace attn {

class Array {
 public:
  static constexpr std::size_t most_axes = 6;

  // Nothing: as() gives empty views of it.
  Array() = default;

  // NOLINTNEXTLINE(google-explicit-constructor): a view knows all that an array does, and more
  template <class T, std::size_t R>
  requires(R <= most_axes) Array(const View<T, R>& view)
      : data_(const_cast<std::remove_const_t<T>*>(view.data_handle())),
        dtype_(dtype_of<std::remove_const_t<T>>),
        writable_(!std::is_const_v<T>),
        rank_(R) {
    std::ranges::copy(view.extents(), extents_.begin());
    std::ranges::copy(view.strides(), strides_.begin());
    if constexpr (constexpr index_t block = block_of_type<std::remove_const_t<T>>; block > 1) {
      extents_[R - 1] *= block;
      for (std::size_t r = 0; r + 1 < R; ++r) strides_[r] *= block;
    }
  }

  // Row-major, in memory of bytes_of(dtype, product of the extents). Rows are of whole blocks.
  Array(DType dtype, std::byte* data, std::span<const index_t> extents) : data_(data), dtype_(dtype), rank_(extents.size()) {
    ATTN_ASSERT(rank_ <= most_axes && (rank_ == 0 || extents.back() % block_of(dtype) == 0));
    std::ranges::copy(extents, extents_.begin());
    index_t stride = 1;
    for (std::size_t r = rank_; r-- > 0; stride *= extents_[r]) strides_[r] = stride;
  }

  // Strides in elements; that of the last axis is 1.
  Array(DType dtype, std::byte* data, std::span<const index_t> extents, std::span<const index_t> strides)
      : Array(dtype, data, extents) {
    ATTN_ASSERT(strides.size() == rank_ && (rank_ == 0 || strides.back() == 1));
    std::ranges::copy(strides, strides_.begin());
  }

  bool empty() const { return data_ == nullptr; }
  const std::byte* data() const { return static_cast<const std::byte*>(data_); }  // of the first element, whatever its type
  DType dtype() const { return dtype_; }
  std::size_t rank() const { return rank_; }
  std::span<const index_t> extents() const { return {extents_.data(), rank_}; }
  std::span<const index_t> strides() const { return {strides_.data(), rank_}; }  // in elements
  index_t extent(std::size_t axis) const { return extents_[axis]; }
  index_t stride(std::size_t axis) const { return strides_[axis]; }
  index_t size() const {
    index_t count = empty() ? 0 : 1;
    for (const index_t extent : extents()) count *= extent;
    return count;
  }
  index_t bytes() const { return bytes_of(dtype_, size()); }  // of the elements, were they dense

  // The elements, or the blocks that they lie in: the last axis of a View<q8> counts these. Their type and the number of axes must be the
  // array's; who writes needs an array made of a View<T>.
  template <class T, std::size_t R>
  View<T, R> as() const {
    if (empty()) return {};
    ATTN_ASSERT((dtype_ == dtype_of<std::remove_const_t<T>> && rank_ == R && (std::is_const_v<T> || writable_)));
    std::array<index_t, R> extents, strides;
    std::copy_n(extents_.begin(), R, extents.begin());
    std::copy_n(strides_.begin(), R, strides.begin());
    if constexpr (constexpr index_t block = block_of_type<std::remove_const_t<T>>; block > 1) {
      ATTN_ASSERT(extents[R - 1] % block == 0);
      extents[R - 1] /= block;
      for (std::size_t r = 0; r + 1 < R; ++r) strides[r] /= block;
    }
    return {static_cast<T*>(data_), extents, strides};
  }
  template <std::size_t R = 4>
  View<const float, R> f32() const {
    return as<const float, R>();
  }
  // The first element, whatever the rank.
  const float* f32_data() const {
    ATTN_ASSERT(dtype_ == DType::f32);
    return static_cast<const float*>(data_);
  }
  template <std::size_t R = 4>
  View<float, R> f32_out() const {
    return as<float, R>();
  }

  // `extent` of an axis, from `from` on.
  Array part(std::size_t axis, index_t from, index_t extent) const {
    ATTN_ASSERT(axis < rank_ && from >= 0 && from + extent <= extents_[axis] && from * strides_[axis] % block_of(dtype_) == 0);
    Array part = *this;
    part.extents_[axis] = extent;
    part.data_ = static_cast<std::byte*>(data_) + bytes_of(dtype_, from * strides_[axis]);
    return part;
  }
  Array first(std::size_t axis, index_t extent) const { return part(axis, 0, extent); }

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::f32;
  bool writable_ = true;
  std::size_t rank_ = 0;
  std::array<index_t, most_axes> extents_{}, strides_{};
};

// A few arrays by name. Copies share the list: a run that hands Arrays on allocates nothing.
class NamedArrays {
 public:
  using Entry = std::pair<std::string, Array>;

  void set(std::string name, Array array) {
    auto list = entries_ ? std::make_shared<Entries>(*entries_) : std::make_shared<Entries>();
    const auto at = std::ranges::find(*list, name, &Entry::first);
    if (at != list->end()) {
      at->second = array;
    } else {
      list->emplace_back(std::move(name), array);
    }
    entries_ = std::move(list);
  }
  const Array* find(std::string_view name) const {
    const auto at = std::ranges::find(begin(), end(), name, &Entry::first);
    return at != end() ? &at->second : nullptr;
  }
  // It must be there.
  const Array& operator[](std::string_view name) const {
    const Array* array = find(name);
    ATTN_ASSERT(array != nullptr);
    return *array;
  }
  const Entry* begin() const { return entries_ ? entries_->data() : nullptr; }
  const Entry* end() const { return entries_ ? entries_->data() + entries_->size() : nullptr; }

 private:
  using Entries = std::vector<Entry>;
  std::shared_ptr<const Entries> entries_;
};

// Where the keys of a sequence lie. By default key p is row p of its kv head.
struct KeyLayout {
  // A ring: of the keys that do not last, the last `ring` that came. Those that last have the `pinned` rows before it: the first keys
  // or, with a `block`, the last `summary` keys of each `block`.
  index_t pinned = 0, ring = 0;
  index_t block = 0, summary = 0;
  // Key p is row p % page_rows of page pages[b * pages_stride + p / page_rows], which begins so many elements after the kv head's
  // first in K and V. The caller sees to it that pages lie in the arrays.
  const std::int32_t* pages = nullptr;
  index_t pages_stride = 0, page_rows = 0;
  index_t k_page_stride = 0, v_page_stride = 0;

  bool plain() const { return ring == 0 && pages == nullptr; }
  bool lasts(index_t key) const { return block == 0 ? key < pinned : key % block >= block - summary; }
  // Of its kv head, or of its page.
  index_t row(index_t key) const {
    if (pages != nullptr) return key % page_rows;
    if (ring == 0) return key;
    if (!lasts(key)) return pinned + ring_row(key);
    return block == 0 ? key : key / block * summary + key % block - (block - summary);
  }
  // How many of the keys key, key + step, ... surely lie that far apart: the first does.
  index_t evenly(index_t key, index_t step) const {
    const auto until = [&](index_t end) { return (end + step - 1) / step; };
    if (pages != nullptr) return until(page_rows - key % page_rows);
    if (ring == 0) return std::numeric_limits<index_t>::max();
    if (block == 0) return until(lasts(key) ? pinned - key : ring - ring_row(key));
    const index_t in_block = key % block, ends = block - summary;
    return in_block >= ends ? until(block - in_block) : std::min(until(ends - in_block), until(ring - ring_row(key)));
  }

 private:
  index_t ring_row(index_t key) const { return (block == 0 ? key - pinned : key) % ring; }
};

// What a run reads and writes. The last stride is 1, the others are free.
struct Arrays {
  Array q, k, v;     // [B,H,N,D], [B,Hk,M,D], [B,Hk,M,Dv]
  Array out;         // [B,H,N,Dv] of f32; empty for who only looks at the inputs
  NamedArrays more;  // what the variant declares beside q, k, v
  // For who reads them (Variant::reads_layouts):
  std::span<const index_t> lengths = {};  // keys of each sequence of a ragged batch (Problem::ragged), at most kv_len
  KeyLayout layout = {};                  // of k and v

  const Array& x() const { return q; }  // what a mixer without queries and keys reads
};

// How many tokens k, v or, where there are none, x have of each sequence.
inline index_t tokens_in(const Arrays& a) { return (a.k.empty() ? a.v.empty() ? a.q : a.v : a.k).extent(2); }

// Some tokens of each sequence. What is missing stays so.
Arrays tokens_of(const Arrays& sequence, index_t first, index_t count);

// The tokens in parts of at most so many.
template <class F>
void for_each_part(const Arrays& tokens, index_t most, F f) {
  const index_t count = tokens_in(tokens);
  for (index_t t = 0; t < count; t += most) f(tokens_of(tokens, t, std::min(most, count - t)));
}

// Of a backward pass: the gradient of some number with respect to the output, and where the gradients with respect to the inputs go.
struct InputGradients {
  Array d_out;          // [B,H,N,Dv]
  Array d_q, d_k, d_v;  // as q, k, v
};

// The same for who reads elements as floats.
struct FloatArrays {
  View<const float, 4> q, k, v;
  View<float, 4> out;

  FloatArrays() = default;
  explicit FloatArrays(const Arrays& a) : q(a.q.f32()), k(a.k.f32()), v(a.v.f32()), out(a.out.f32_out()) {}
  const View<const float, 4>& x() const { return q; }
};

// Q, K and V for who reads elements and no types: of what is stored in another type, a copy as floats. What is empty stays so.
class AsFloats {
 public:
  explicit AsFloats(const Arrays& stored);
  AsFloats(const AsFloats&) = delete;
  AsFloats& operator=(const AsFloats&) = delete;

  const Arrays& arrays() const { return arrays_; }
  FloatArrays views() const { return FloatArrays(arrays_); }

 private:
  std::array<std::vector<float>, 3> memory_;
  Arrays arrays_;
};

}  // namespace attn
