// From a list of keys to what the kernels of this folder read: blocks of row pointers, in the order of the list. Private to the
// engine.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "attn/core/array.hpp"
#include "attn/kernels/softmax/keys.hpp"

namespace attn::kernels {

// Rows first .. first + count - 1 of those that share keys, which are `queries` queries of one head from first_query on, then those of
// the next. Query i stands at position shift + i.
struct GroupRows {
  index_t first = 0, count = 0;
  index_t queries = 1, first_query = 0;
  index_t shift = 0;
  bool causal = false;
  // Unless null: to the logit of key j and a row of the list's head h come potential(h, position of the row) - potential(h, j), which is
  // potential[h * head_stride + position].
  const double* potential = nullptr;
  index_t head_stride = 0;
  index_t first_potential = 0;  // the least position that has one; rows before it see nothing

  const double* potential_of(index_t i) const { return potential + (first + i) / queries * head_stride; }
  index_t query(index_t i) const { return first_query + (first + i) % queries; }
  index_t lowest() const { return shift + first_query; }
  index_t highest() const { return lowest() + queries - 1; }
};

bool sees(const KeyRun& run, const GroupRows& rows, index_t query, index_t key);

// Keys that are taken at a time.
struct KeyBlock {
  static constexpr index_t capacity = 128;
  static constexpr index_t padding = 16;  // k and v go on with a readable row up to a multiple of this,
  static constexpr index_t ahead = 4;     // and so many more: kernels fetch a row some keys before they read it

  index_t count = 0;
  bool cut = false;  // some query does not see some key; then position and run are set; position too where there is a potential
  std::array<const std::byte*, capacity + ahead> k, v;
  std::array<index_t, capacity> position;
  std::array<const KeyRun*, capacity> run;
};

// Keys at hand, and those that follow.
struct KeyBlocks {
  const KeyBlock& now;
  const KeyBlock& next;
  const KeyBlock& later;
};

// Where the keys and values of a sequence lie, from `k` and `v` on: strides in bytes, those of the layout too, whose pages are the
// sequence's.
struct KeyRows {
  const std::byte* k = nullptr;
  const std::byte* v = nullptr;
  index_t k_stride = 0, v_stride = 0;
  KeyLayout layout = {};
};

// A list as spans: runs without numbers and ends that stick out, of keys that some query sees. Returns how many.
index_t list_spans(const KeyList& list, const GroupRows& rows, std::span<KeyRun> to);

// Of all spans.
index_t count_keys(std::span<const KeyRun> spans);

class KeyWalk {
 public:
  // From key number `from` of the spans on.
  KeyWalk(std::span<const KeyRun> spans, const KeyRows& keys, const GroupRows& rows, index_t from);

  // The next `limit` keys, or as many as there are.
  void next(KeyBlock& block, index_t limit);

 private:
  void point(KeyBlock& block, index_t position, index_t step, index_t count) const;
  bool seen_by_all(const KeyRun& run, index_t low, index_t high) const;

  std::span<const KeyRun> spans_;
  KeyRows keys_;
  GroupRows rows_;
  std::size_t span_ = 0;
  index_t at_ = 0;  // key of the span
};

}  // namespace attn::kernels
