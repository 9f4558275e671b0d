// The words in which a variant says who attends to whom: the engine shows its schedule one block of queries at a time, and
// the schedule lists the keys that this block sees. Whatever the list says, causality of the problem holds besides.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>

#include "attn/core/assert.hpp"
#include "attn/core/problem.hpp"

namespace attn::kernels {

inline constexpr index_t anywhere = std::numeric_limits<index_t>::max() / 4;

// Queries that share one list of keys: rows first, first+step, ... of their head, or rows[0..count) where rows is set.
struct QueryBlock {
  index_t batch = 0, head = 0, kv_head = 0;
  index_t block = 0;  // which block of its head
  index_t count = 0;
  index_t first = 0, step = 1;
  const std::int32_t* rows = nullptr;
  index_t shift = 0;  // row r stands at key position r + shift

  index_t row(index_t i) const { return rows != nullptr ? rows[i] : first + i * step; }
  index_t position(index_t i) const { return row(i) + shift; }
};

// `count` groups of `width` consecutive keys; group e starts at first + step * e, or at first + step * index[e]. Parts outside
// 0..kv_len-1 are left out, so ends need no care. Every restriction below is cut exactly, lane by lane.
struct KeyRun {
  index_t first = 0, step = 1, count = 0, width = 1;
  const std::int32_t* index = nullptr;
  index_t left = anywhere, right = anywhere;
  index_t not_left = -1, not_right = 0;
  bool (*keep)(const void* context, index_t row, index_t key) = nullptr;
  const void* context = nullptr;
  const std::uint64_t* hidden = nullptr;
  index_t hidden_words = 0;
  const std::int32_t* begins = nullptr;

  // Only keys from position - left to position + right of the query.
  KeyRun& band(index_t keys_left, index_t keys_right) { return left = keys_left, right = keys_right, *this; }

  // Not the keys from position - left to position + right: for keys that another run has listed already.
  KeyRun& outside(index_t keys_left, index_t keys_right) { return not_left = keys_left, not_right = keys_right, *this; }

  // Only where keep(row, key). Called once for each pair, so for short runs. `predicate` must outlive the engine's run.
  template <class F>
  KeyRun& where(const F& predicate) {
    context = &predicate;
    keep = [](const void* f, index_t row, index_t key) { return static_cast<bool>((*static_cast<const F*>(f))(row, key)); };
    return *this;
  }

  // Not the pairs that `bits` marks: bit r % 64 of bits[key * words + r / 64] for row r of the head. For long runs, in which a row
  // has exceptions of its own. Blocks are of consecutive rows. `bits` must outlive the engine's run.
  // Of the softmax engine alone.
  KeyRun& except(const std::uint64_t* bits, index_t words) { return hidden = bits, hidden_words = words, *this; }

  // Only keys from begins[row] on, which may not fall from a row to the next. Blocks and `begins` as in `except`.
  // Of the softmax engine alone.
  KeyRun& from(const std::int32_t* first_of_rows) { return begins = first_of_rows, *this; }
};

// A key that two runs list counts twice, as in a sum over a multiset.
class KeyList {
 public:
  static constexpr std::size_t capacity = 32;

  explicit KeyList(index_t kv_len) : kv_len_(kv_len) {}

  KeyRun& all() { return range(0, kv_len_); }
  KeyRun& range(index_t first, index_t count) { return add({.first = first, .count = 1, .width = count}); }
  KeyRun& strided(index_t first, index_t step, index_t count) { return add({.first = first, .step = step, .count = count}); }
  // Blocks of `width` keys from first, first + step, ...
  KeyRun& blocks(index_t first, index_t step, index_t count, index_t width) {
    return add({.first = first, .step = step, .count = count, .width = width});
  }
  // Keys by number. The array must outlive the engine's run; so below.
  KeyRun& listed(const std::int32_t* keys, index_t count) { return add({.count = count, .index = keys}); }
  // Blocks by number: block u is keys u * width .. u * width + width - 1.
  KeyRun& listed_blocks(const std::int32_t* blocks, index_t count, index_t width) {
    return add({.step = width, .count = count, .width = width, .index = blocks});
  }

  index_t kv_len() const { return kv_len_; }
  std::size_t size() const { return size_; }
  const KeyRun& operator[](std::size_t i) const { return runs_.of[i]; }

 private:
  KeyRun& add(const KeyRun& run) {
    ATTN_ASSERT(size_ < capacity);
    return *std::construct_at(&runs_.of[size_++], run);
  }

  // Nothing before it is added: two lists are made for each block of queries, and 3.5 KB of defaults are 3 % of a short one.
  union Runs {
    Runs() {}
    std::array<KeyRun, capacity> of;
  };

  index_t kv_len_;
  std::size_t size_ = 0;
  Runs runs_;
};

// The schedule of attention to everything.
inline constexpr auto all_keys = [](const QueryBlock&, KeyList& keys) { keys.all(); };

}  // namespace attn::kernels
