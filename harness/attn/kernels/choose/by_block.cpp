#include "attn/kernels/choose/by_block.hpp"

#include <algorithm>

#include "attn/core/round.hpp"
#include "attn/exec/arena.hpp"
#include "attn/kernels/choose/grouping.hpp"
#include "attn/kernels/softmax/tile.hpp"

namespace attn::kernels {

ByBlock::ByBlock(index_t tables, index_t rows, index_t blocks, index_t places, WorkspacePlan& plan)
    : tables_(tables),
      rows_(rows),
      blocks_(blocks),
      places_(places),
      lanes_(tile_ops(3).lanes),
      pieces_(blocks + rows / piece_rows),
      list_size_(rows + blocks * (lanes_ - 1)),
      lists_(plan.shared<std::int32_t>(tables * places * list_size_)),
      scratch_(plan.per_worker<std::int32_t>(2 * rows + blocks + 2)),
      pieces_memory_(plan.shared<Piece>(tables * places * pieces_)) {}

void ByBlock::group(Table table, const Workspace& workspace) const {
  parallel_tasks(tables_ * places_, [&](index_t task, int worker) {
    const std::int32_t* const chosen = table(task / places_) + task % places_;
    const std::span<std::int32_t> own = workspace.of(worker, scratch_);
    const auto size = static_cast<std::size_t>(rows_);
    const std::span<std::int32_t> group = own.first(size), order = own.subspan(size, size), begin = own.subspan(2 * size);
    for (index_t i = 0; i < rows_; ++i) {
      const std::int32_t u = chosen[i * places_];
      group[static_cast<std::size_t>(i)] = u >= 0 ? u : static_cast<std::int32_t>(blocks_);
    }
    sort_by_group(group, order, begin);
    std::int32_t *const list = workspace.shared(lists_).data() + task * list_size_, *end = list;
    Piece* next = workspace.shared(pieces_memory_).data() + task * pieces_;
    Piece* const pieces_end = next + pieces_;
    for (std::int32_t u = 0; u < blocks_; ++u) {
      const std::int32_t last = begin[static_cast<std::size_t>(u) + 1];
      for (std::int32_t i = begin[static_cast<std::size_t>(u)]; i < last; i += piece_rows) {
        const std::int32_t count = std::min(static_cast<std::int32_t>(piece_rows), last - i);
        *next++ = {static_cast<std::int32_t>(end - list), count, u};
        end = std::copy_n(order.begin() + i, count, end);
        end = std::fill_n(end, round_up(count, lanes_) - count, end[-1]);
      }
    }
    std::fill(next, pieces_end, Piece{0, 0, 0});
  });
}

const ByBlock::Piece& ByBlock::piece(const Workspace& workspace, index_t table, index_t place, index_t number) const {
  return workspace.shared(pieces_memory_)[static_cast<std::size_t>((table * places_ + place) * pieces_ + number)];
}

index_t ByBlock::block(const Workspace& workspace, index_t table, index_t place, index_t number) const {
  return piece(workspace, table, place, number).block;
}

std::span<const std::int32_t> ByBlock::rows(const Workspace& workspace, index_t table, index_t place, index_t number,
                                            bool whole) const {
  const Piece& own = piece(workspace, table, place, number);
  const std::int32_t* const list = workspace.shared(lists_).data() + (table * places_ + place) * list_size_;
  return {list + own.first, static_cast<std::size_t>(whole ? round_up(own.count, lanes_) : own.count)};
}

}  // namespace attn::kernels
