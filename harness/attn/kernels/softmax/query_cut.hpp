// The queries of a head in blocks: each block shares one list of keys and is one task, or a part of it.
#pragma once

#include <cstdint>
#include <span>

#include "attn/core/problem.hpp"
#include "attn/exec/arena.hpp"
#include "attn/kernels/softmax/keys.hpp"

namespace attn::kernels {

// How the queries of a head are cut into blocks.
struct QueryBlocks {
  enum class Kind { contiguous, classes, listed } kind = Kind::contiguous;
  index_t align = 0;   // contiguous: no block crosses a key position that is a multiple of this; 0 = any
  index_t step = 1;    // classes: rows r, r + step, r + 2 step, ... for r < step, as with dilated windows
  index_t blocks = 0;  // listed: blocks in a head
  index_t rows = 0;    // listed: rows in a block, at most

  static QueryBlocks aligned(index_t to) { return {.align = to}; }
  static QueryBlocks classes(index_t step) { return {.kind = Kind::classes, .step = step}; }
  static QueryBlocks listed(index_t blocks, index_t rows) { return {.kind = Kind::listed, .blocks = blocks, .rows = rows}; }
};

// Rows of a block, with QueryBlocks::listed.
using RowSchedule = FunctionRef<std::span<const std::int32_t>(index_t batch, index_t head, index_t block)>;

// How the queries of a problem are cut into blocks that share a list of keys.
class QueryCut {
 public:
  // Units: the whole head, aligned stretches, residue classes or listed blocks.
  QueryCut(const Problem& problem, const QueryBlocks& queries);

  bool listed() const { return queries_.kind == QueryBlocks::Kind::listed; }
  index_t units() const { return units_; }          // of a head
  index_t unit_rows() const { return unit_rows_; }  // at most
  index_t part_rows() const { return part_rows_; }  // of a block, at most
  index_t blocks_of_head() const { return units_ * parts_; }

  // Cuts the units into blocks of about `rows`, multiples of `lanes` where a unit has more.
  void cut(index_t rows, index_t lanes);
  // Blocks of a head follow each other, heads of a batch item likewise. `rows` with listed blocks only. The problem is about batch
  // items from first_batch on.
  QueryBlock block(const Problem& problem, index_t number, const RowSchedule* rows, index_t first_batch = 0) const;

 private:
  QueryBlocks queries_;
  index_t head_start_ = 0;  // contiguous: rows by which the first unit is shorter
  index_t units_ = 1, unit_rows_ = 0, parts_ = 1, part_rows_ = 0;
};

}  // namespace attn::kernels
