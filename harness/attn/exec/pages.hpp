// Which pages of a pool hold the tokens of each sequence, in their order: what a server keeps of sequences that grow.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "attn/core/array.hpp"
#include "attn/core/result.hpp"

namespace attn {

class PageTable {
 public:
  // `table`: as many pages for each of the sequences. Refused: one that is not among the `pool` pages, and one that stands twice.
  static Result<PageTable> of(std::vector<std::int32_t> table, index_t sequences, index_t pool);
  // A pool of just as many pages, in an order that depends on their number alone.
  static PageTable shuffled(index_t sequences, index_t each);

  index_t each() const { return each_; }  // pages of a sequence
  index_t pool() const { return pool_; }
  // Of K and V in pages of so many rows. Points into this table.
  KeyLayout layout(index_t page_rows, index_t k_page_stride, index_t v_page_stride) const;

 private:
  PageTable(std::vector<std::int32_t> table, index_t each, index_t pool) : table_(std::move(table)), each_(each), pool_(pool) {}

  std::vector<std::int32_t> table_;
  index_t each_, pool_;
};

}  // namespace attn
