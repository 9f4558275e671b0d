// From a list of keys to what the tile kernel reads: panels of row pointers, and for each tile the steps that it sees.
// Private to the engine.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "attn/core/array.hpp"
#include "attn/kernels/softmax/keys.hpp"
#include "attn/kernels/softmax/tile.hpp"

namespace attn::kernels {

// Keys of a panel, which all tiles of a block go through before the next. Long lists take panels of 128: at D = 64, 64 lose 1 % to
// loads and stores of O, 256 lose 2 % to the caches. For short windows a panel holds all that a block sees, so that a tile is
// done in one go. `batch_keys`: of a batch, at most (Emerald Rapids, g++ 12).
inline constexpr index_t usual_panel_keys = 128;
inline constexpr index_t panel_keys = 512;
inline constexpr index_t batch_keys = 160;
// Weights in bf16 take half the room: panels and batches of twice as many keys load and store O half as often.
inline constexpr index_t dot_panel_keys = 256, dot_batch_keys = 256;
inline constexpr index_t most_batch_keys = std::max(batch_keys, dot_batch_keys);
inline constexpr index_t panel_steps = panel_keys / key_step;

// The rows of one kv head as they are stored. Strides in bytes, those of the layout too, whose pages are the sequence's.
struct KeyRows {
  const std::byte* k;
  const std::byte* v;
  index_t k_stride;
  index_t v_stride;
  index_t k_bytes;  // of a row
  index_t v_bytes;
  bool copy_k, copy_v;  // where they would fall into few cache sets
  KeyLayout layout = {};
};

struct KeyPanel {
  struct Step {
    const KeyRun* run;
    index_t lowest, highest;  // of its keys
    unsigned valid;           // bit r: row r is a key and no padding
    bool plain;               // nothing but the band restricts it
  };
  index_t count = 0;                // rows, a multiple of key_step
  index_t lowest, highest;          // of all keys
  index_t left, right;              // the widest band of its runs
  index_t least_left, least_right;  // the narrowest
  bool plain;                       // all steps are
  bool ascending;                   // no step holds a key below one of the step before
  std::array<const std::byte*, panel_keys> k, v;
  std::array<index_t, panel_keys> key;
  std::array<Step, panel_steps> steps;
};

// What the lanes of a tile stand for.
struct TileQueries {
  const QueryBlock* block;
  index_t first;  // lane i is query first + i of the block
  index_t count;
  index_t lowest, highest;  // of their positions
};

// The lowest and highest position among queries first .. first + count - 1 of a block.
inline std::pair<index_t, index_t> position_range(const QueryBlock& block, index_t first, index_t count) {
  if (block.rows == nullptr) return {block.position(first), block.position(first + count - 1)};
  const auto [low, high] = std::minmax_element(block.rows + first, block.rows + first + count);
  return {*low + block.shift, *high + block.shift};
}

class KeyStream {
 public:
  // Positions of the block's queries lie in [lowest, highest].
  KeyStream(const KeyList& list, index_t lowest, index_t highest, bool causal, index_t panel_limit = usual_panel_keys);

  // Keys still to come, about: exact but for listed keys that the restrictions of their run leave out.
  index_t remaining() const;

  // Fills the next panel; false when there are no more keys. `copies`, unless null, is room for usual_panel_keys rows of K and as
  // many of V.
  bool next(const KeyRows& rows, KeyPanel& panel, std::byte* copies);

 private:
  void enter_run();
  index_t append(const KeyRun& run, const KeyRows& rows, KeyPanel& panel, index_t n, index_t limit);

  const KeyList& list_;
  index_t lowest_, highest_;
  bool causal_;
  index_t limit_;
  std::size_t run_ = 0;
  index_t group_ = 0, last_group_ = 0;  // of the run
  index_t offset_ = 0;                  // in the group
  index_t from_ = 0, to_ = 0;           // keys that any query may see
};

// Steps [first, end) outside which the tile surely sees nothing.
std::pair<index_t, index_t> steps_in_reach(const KeyPanel& panel, const TileQueries& tile);

// All keys are seen by all queries of the tile, surely.
inline bool sees_whole(const KeyPanel& panel, const TileQueries& tile) {
  return panel.plain && panel.highest <= tile.lowest + panel.least_right && panel.lowest >= tile.highest - panel.least_left;
}

enum class Sight { none, some, all };

// What the tile sees of a step. With Sight::some, lanes[0..key_step) tells which lane sees which key.
Sight partial_sight(const KeyPanel& panel, index_t step, const TileQueries& tile, bool causal, std::uint64_t* lanes);

inline Sight sight(const KeyPanel& panel, index_t step, const TileQueries& tile, bool causal, std::uint64_t* lanes) {
  const KeyPanel::Step& s = panel.steps[static_cast<std::size_t>(step)];
  const index_t right = causal && s.run->right > 0 ? 0 : s.run->right;
  if (s.lowest > tile.highest + right || s.highest < tile.lowest - s.run->left) return Sight::none;
  if (s.plain && s.highest <= tile.lowest + right && s.lowest >= tile.highest - s.run->left) return Sight::all;
  return partial_sight(panel, step, tile, causal, lanes);
}

}  // namespace attn::kernels
