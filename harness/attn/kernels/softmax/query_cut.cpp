#include "attn/kernels/softmax/query_cut.hpp"

#include <algorithm>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"

namespace attn::kernels {

QueryCut::QueryCut(const Problem& problem, const QueryBlocks& queries) : queries_(queries) {
  unit_rows_ = problem.q_len;
  switch (queries_.kind) {
    case QueryBlocks::Kind::contiguous:
      if (queries_.align > 0) {
        head_start_ = floor_mod(problem.query_position(0), queries_.align);
        units_ = ceil_div(head_start_ + problem.q_len, queries_.align);
        unit_rows_ = std::min(queries_.align, problem.q_len);
      }
      break;
    case QueryBlocks::Kind::classes:
      units_ = std::min(queries_.step, problem.q_len);
      unit_rows_ = ceil_div(problem.q_len, queries_.step);
      break;
    case QueryBlocks::Kind::listed:
      units_ = queries_.blocks;
      unit_rows_ = queries_.rows;
      break;
  }
  part_rows_ = unit_rows_;
}

void QueryCut::cut(index_t rows, index_t lanes) {
  parts_ = std::max<index_t>(1, ceil_div(unit_rows_, rows));
  part_rows_ = std::max<index_t>(1, round_up(ceil_div(unit_rows_, parts_), unit_rows_ > lanes ? lanes : 1));
  parts_ = std::max<index_t>(1, ceil_div(unit_rows_, part_rows_));
}

QueryBlock QueryCut::block(const Problem& problem, index_t number, const RowSchedule* rows, index_t first_batch) const {
  QueryBlock block;
  // One part of all residue classes before the next: they lie in the same pages.
  const bool parts_first = queries_.kind != QueryBlocks::Kind::classes;
  const index_t part = parts_first ? number % parts_ : number / units_ % parts_;
  block.block = parts_first ? number / parts_ % units_ : number % units_;
  const index_t rest = number / (parts_ * units_);
  block.head = rest % problem.heads;
  block.batch = first_batch + rest / problem.heads;
  block.kv_head = problem.kv_head(block.head);
  block.shift = problem.kv_len - problem.q_len;
  index_t length = problem.q_len;
  if (queries_.kind == QueryBlocks::Kind::contiguous && queries_.align > 0) {
    block.first = std::max<index_t>(0, block.block * queries_.align - head_start_);
    length = std::min((block.block + 1) * queries_.align - head_start_, problem.q_len) - block.first;
  } else if (queries_.kind == QueryBlocks::Kind::classes) {
    block.first = block.block;
    block.step = queries_.step;
    length = ceil_div(problem.q_len - block.first, block.step);
  } else if (queries_.kind == QueryBlocks::Kind::listed) {
    const std::span<const std::int32_t> list = (*rows)(block.batch, block.head, block.block);
    ATTN_ASSERT(static_cast<index_t>(list.size()) <= queries_.rows);
    length = static_cast<index_t>(list.size());
    block.rows = list.data() + std::min(part * part_rows_, length);
  }
  block.first += part * part_rows_ * block.step;
  block.count = std::clamp<index_t>(length - part * part_rows_, 0, part_rows_);
  return block;
}

}  // namespace attn::kernels
