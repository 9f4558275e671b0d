// Queries that chose the same block of keys, together: row lists for the softmax engine, which then goes through the places of a table of
// choices one by one, each run going on from what those before found (EngineArrays::resume).
#pragma once

#include <cstdint>
#include <span>

#include "attn/exec/workspace.hpp"
#include "attn/kernels/softmax/engine.hpp"

namespace attn::kernels {

class ByBlock {
 public:
  // Of `tables` tables [rows, places] with numbers below `blocks`, or -1 for none.
  ByBlock(index_t tables, index_t rows, index_t blocks, index_t places, WorkspacePlan&);

  // How the engine's plan cuts queries.
  QueryBlocks queries() const { return QueryBlocks::listed(pieces_, piece_rows); }

  // On the threads of the arena. table(t): the t-th table.
  using Table = FunctionRef<const std::int32_t*(index_t)>;
  void group(Table table, const Workspace&) const;

  // After that, a piece of those that have a block at this place: which block, and the rows. With `whole` tiles a row's bits do not depend on
  // how many others, later ones too, chose as it did: the last row comes again until the tile is full, and is computed and written again, the
  // same. Not for a backward pass, which would add its gradient again.
  index_t block(const Workspace&, index_t table, index_t place, index_t piece) const;
  std::span<const std::int32_t> rows(const Workspace&, index_t table, index_t place, index_t piece, bool whole) const;

 private:
  struct Piece {
    std::int32_t first, count, block;
  };
  static constexpr index_t piece_rows = 192;  // that meet a block at once, at most: four wide tiles

  const Piece& piece(const Workspace&, index_t table, index_t place, index_t piece) const;

  index_t tables_, rows_, blocks_, places_;
  index_t lanes_;   // of a wide tile
  index_t pieces_;  // of a table's place, at most
  index_t list_size_;
  Booking<std::int32_t> lists_, scratch_;
  Booking<Piece> pieces_memory_;
};

}  // namespace attn::kernels
