// One block of queries on its way through its keys. Private to the softmax engine.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "attn/kernels/machine/widen.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/kernels/softmax/key_stream.hpp"
#include "attn/kernels/softmax/tile.hpp"

namespace attn::kernels {

inline constexpr index_t most_tiles = 24;  // of a block

// A block of queries, cut into tiles. Their arrays lie in memory of the workspace.
struct SoftmaxEngine::Tiles {
  index_t size = 0;
  std::array<Tile, most_tiles> tile;
  std::array<TileQueries, most_tiles> queries;
  std::array<const TileOps*, most_tiles> ops;
};

// What a worker is given: part `split` of the keys of `block`. `later` is the block that it takes up next, as far as can be known.
struct SoftmaxEngine::BlockWork {
  const Division& division;
  const EngineArrays& arrays;
  const Workspace& workspace;
  KeySchedule schedule;
  const QueryBlock& block;
  const QueryBlock& later;
  index_t split;
  int worker;
  std::atomic<bool>& wide;  // some tile of the run was (tile.hpp): others most likely are
};

// Takes the tiles from load to the last key and, unless their keys are split, to the output.
class SoftmaxEngine::BlockPass {
 public:
  // `guard_all`: keeps away values that a lane must not see (tile.hpp).
  BlockPass(const SoftmaxEngine& engine, const BlockWork& work, Tiles& tiles, bool guard_all);

  // False when it is to be done again with `guard_all`: an infinity or a NaN came out where some batch was cut, maybe of a value
  // that its lane should not have seen.
  bool run();

 private:
  // Rows in the order in which they will be needed; a tile's batches fetch some of them each.
  struct Soon {
    const std::byte* rows[2][most_batch_keys];
    index_t queries = 0;         // read or listed: of the block, then of the later one
    index_t keys = 0, next = 0;  // of the panel, of the next one
  };

  KeyRows key_rows(const QueryBlock& of) const;
  bool advance();
  void take_up_next();
  void widen_panel();
  void pack_panel();
  void look_beyond();
  void start_tile(std::size_t t);
  void resume_tile(std::size_t t);
  bool finite(std::size_t t) const { return tiles_.ops[t]->finite(tiles_.tile[t], engine_.shape_); }

  std::pair<index_t, index_t> look_at_steps(std::size_t t);
  void bias_keys(std::size_t t, index_t first, index_t end);
  void look_at_mask(std::size_t t, index_t first, index_t end);
  void mask_keys(index_t first, index_t end);
  void mask_pairs(std::size_t t, index_t first, index_t end);
  bool in_a_row(index_t step) const;
  KeyBatch next_batch(std::size_t t, index_t& step, index_t end);
  bool attend_panel(std::size_t t, bool guard);
  void tile_by_tile();
  bool panel_by_panel(bool more);

  index_t list_queries(index_t until, index_t n, index_t room);
  index_t list_keys(const KeyPanel& from, index_t& done, index_t n, index_t room);
  index_t list_soon(std::size_t t, index_t room);

  const SoftmaxEngine& engine_;
  const BlockWork& work_;
  Tiles& tiles_;
  const bool guard_all_;
  const StoredRows q_, later_q_;  // of the blocks' heads
  const View<float, 2> out_, later_out_;
  const double* const potential_;  // of the head, at position 0, or null
  View<const float, 2> mask_;      // of the head, or empty
  const KeyRows rows_;
  const KeyList list_;
  KeyStream stream_;
  KeyPanel *panel_, *next_;
  std::byte *copies_ = nullptr, *next_copies_ = nullptr;  // of their rows
  float *widened_ = nullptr, *queries_ = nullptr;         // a panel's rows, and a tile's, as floats
  std::uint32_t* packed_ = nullptr;                       // a panel's values, in pairs
  float* weights_;
  index_t number_ = -1;  // of the panel that was read last
  Soon soon_;
  Sight seen_[panel_steps];  // of the tile at hand
  std::uint64_t lanes_[panel_keys];
  float bias_[panel_keys];
  float* pair_bias_ = nullptr;       // where a mask says more than a number of each key
  std::uint64_t shown_[panel_keys];  // by the mask: lanes
};

}  // namespace attn::kernels
