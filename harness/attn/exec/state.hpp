// What is kept of sequences so that later queries about them can be answered without their past: sums that tokens were folded into, or the
// keys and values themselves.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attn/core/array.hpp"
#include "attn/exec/buffer.hpp"
#include "attn/exec/pages.hpp"

namespace attn {

struct StateTensor {
  std::string name;
  std::vector<index_t> extents;  // of one sequence
  DType dtype = DType::f32;      // another one only of rows of tokens
  float at_first = 0;            // every element, before the first token
};

struct StateSpec {
  std::vector<StateTensor> tensors;
  // The tensors are rows of tokens as they came, [kv_heads, rows, width] each and named k, v or x after what they hold: a ring, and
  // before it `pinned` rows of tokens that last (KeyLayout). Without a ring, other tokens are not kept.
  bool of_tokens = false;
  index_t pinned = 0;
  index_t block = 0, summary = 0;
  index_t page_rows = 0;  // the rows, then of all tokens, lie in pages of so many that follow each other in no order
  bool updated = true;    // not of tokens: a step reads and writes all of it, else it reads what the page's cost says

  index_t rows() const { return of_tokens ? tensors.front().extents[1] : 0; }
  KeyLayout layout() const { return {.pinned = pinned, .ring = rows() - pinned, .block = block, .summary = summary}; }
  index_t pages() const { return page_rows > 0 ? (rows() + page_rows - 1) / page_rows : 0; }  // of a sequence
  index_t bytes() const;                                                                      // of one sequence
};

// Memory for a batch of sequences, or for a stretch of each that begins at position `start`. At first no token has come.
class State {
 public:
  State(StateSpec spec, index_t batch, index_t start = 0);
  State copy() const;  // memory of its own, the same tokens

  const StateSpec& spec() const { return spec_; }
  index_t batch() const { return batch_; }
  index_t length() const { return length_; }                     // tokens of the longest sequence so far
  std::span<const index_t> lengths() const { return lengths_; }  // of each
  index_t end() const { return start_ + length_; }               // where the next one stands, where all have as many
  index_t bytes() const { return batch_ * spec_.bytes(); }
  const std::optional<PageTable>& pages() const { return pages_; }

  // [batch, the tensor's extents], dense; of rows in pages [batch, kv_heads, page_rows, width], page 0 for every sequence. Null for a
  // name that is not in the spec; operator[] asserts.
  const Array* find(std::string_view name) const { return arrays_.find(name); }
  const Array& operator[](std::string_view name) const { return arrays_[name]; }

  // All elements of a tensor of f32, row-major; of one in pages, the pool's.
  std::span<float> elements(std::string_view name) const;

  void clear();  // no token has come
  void blank();  // nor is any number there: all are NaN, so that who reads one where no token has come cannot be right
  // Says that so many tokens were folded into each.
  void advance(index_t tokens);
  // Sets the lengths back, so that the last tokens can come again. Those of a state of tokens then take their old rows; sums that they
  // were folded into keep them and go on, which changes what a step gives and not what it costs.
  void rewind(index_t tokens);
  // Of a state of tokens: keeps these, as many of each sequence as Arrays::lengths says, that follow what is there.
  void append(const Arrays& tokens);
  // Of a state of tokens from position 0 on: the queries with all keys and values that are kept, and where these lie.
  Arrays asked_by(const Arrays& queries) const;
  // Likewise: takes over from one of more or fewer rows the tokens that both keep.
  void adopt(const State& other);

 private:
  index_t page_stride(const StateTensor& tensor) const;  // elements; 0: the rows lie in no pages
  Array array_of(const StateTensor& tensor, const Buffer& memory) const;
  KeyLayout layout() const;

  StateSpec spec_;
  index_t batch_, start_;
  index_t length_ = 0;
  std::vector<index_t> lengths_;
  std::vector<Buffer> memory_;      // of each tensor
  std::optional<PageTable> pages_;  // of rows in pages
  NamedArrays arrays_;
};

}  // namespace attn
