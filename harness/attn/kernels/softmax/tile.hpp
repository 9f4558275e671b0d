// One tile of queries meeting a batch of keys: the inner loop of every softmax variant, one copy for each instruction set.
//
// Queries stand in the vector lanes; keys and values are read by scalar broadcast where they lie, so nothing of K or V is
// packed and no reduction crosses lanes. Scores never reach memory: a step of 8 keys is multiplied out in registers, becomes
// weights exp2(s - ref) there, and the weights of a batch then meet V. `ref` starts at 0 and moves only when the weights of a
// batch add up to more than 4096, or those of a lane's first batch to nearly nothing; their sum, needed anyway, tells. So there
// is no running maximum (lazy rescaling as in FlashAttention-4 and vLLM, one operation a score cheaper). Only a tile that has met
// scores far from its reference makes the scores of a batch first, then weights from their largest: the same bits, in 4 to 7 % more
// time (Zen 4).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "attn/core/problem.hpp"
#include "attn/core/round.hpp"

namespace attn::kernels {

inline constexpr index_t key_step = 8;        // keys are taken in steps of this many
inline constexpr index_t max_lanes = 48;      // queries in the widest tile of any instruction set
inline constexpr index_t max_head_dim = 256;  // of head_dim and value_dim

// From products of queries and keys to logits: as they are, plus a number of the key, or of the pair, or bounded by cap tanh(product / cap).
enum class Scoring { plain, biased, paired, capped };

// Keys as rows: k[j] points at head_dim floats, v[j] at value_dim floats. `count` is a multiple of key_step, at most 512.
// (Of tiles of another compute, tile_bf16.hpp, rows are what it says.)
// Bit s of `cut` marks step s (keys 8s..8s+7) as seen by some lanes only; then bit i of lanes[8s+r] says whether lane i sees
// key 8s+r. `lanes` is read in cut steps only. A key that a lane does not see has weight zero there, whatever its score; `guard`
// says to keep its value away too, which zero times infinity or NaN would not: half as fast, so only for tiles that came out
// with such a value.
struct KeyBatch {
  const std::byte* const* k;
  const std::byte* const* v;
  const std::uint64_t* lanes;
  std::uint64_t cut;
  bool guard;
  index_t count;
  // What will be needed soon, brought into L2 meanwhile, a line for every other multiplication of a key: fetch_count <= count
  // times head_dim floats in fetch[0], and as many times value_dim floats in fetch[1].
  const std::byte* const* fetch[2];
  index_t fetch_count = 0;
  const float* bias =
      nullptr;  // in log2 units: of each key, for tiles that are biased; of each key and lane, for those that are paired
};

// A tile in flight, made by `tile_in`. Query i of the tile is lane i of every vector. The arrays are the caller's, 64-byte aligned. Of no
// initial values: a block has room for 24 and most often uses a few.
struct Tile {
  float* qt;            // [head_dim][lanes]   queries times factor, transposed
  float* ot;            // [value_dim][lanes]  sum of exp2(s - ref) v
  float* minus_ref;     // [lanes]             minus the reference score
  float* sum;           // [lanes]             sum of exp2(s - ref)
  float* batch_sum;     // [lanes]             the part of the batch that is attended
  std::uint64_t unset;  // lanes that have seen no key yet: their ot and sum are zero
  bool fresh;           // no batch was attended yet: ot and sum are not written
  bool wide;            // scores were seen that lie far from the reference, or are likely: decides on time, not on bits
  std::uint64_t far;    // lanes whose reference has moved to such a score
  float factor;         // on scores, where qt is without it
  float cap;            // in log2 units, for tiles that are capped: there qt gives scores / cap
};

struct TileShape {
  index_t head_dim;
  index_t value_dim;
};

// Scores are in log2 units: factor = scale * log2(e) makes the weights those of softmax.
struct TileOps {
  index_t lanes;
  // Starts a tile with `count` <= lanes query rows of head_dim floats.
  void (*load)(Tile& tile, const TileShape&, const std::byte* const* rows, index_t count, float factor);
  // Goes on where `store` left off: rows and lse are what it wrote. After `load`.
  void (*resume)(Tile& tile, const TileShape&, const float* const* rows, index_t count, const float* const* lse);
  // Adds a batch. `weights`: scratch of batch.count * lanes floats.
  void (*attend)(Tile& tile, const TileShape&, const KeyBatch& batch, float* weights);
  // No infinity and no NaN in ot.
  bool (*finite)(const Tile& tile, const TileShape&);
  // Adds what another tile of the same queries found among other keys.
  void (*merge)(Tile& tile, const TileShape&, const Tile& other);
  // Writes rows[i] = ot/sum, zeros for a lane that saw no key, and unless null *lse[i] = ln(sum exp(logit)), -inf for none.
  void (*store)(const Tile& tile, const TileShape&, float* const* rows, index_t count, float* const* lse);
};

inline const std::byte* as_bytes(const float* row) { return reinterpret_cast<const std::byte*>(row); }

// Tiles of 1, 2 or 3 vectors of the active instruction set.
const TileOps& tile_ops(int vectors);
// The same with scores that are biased or capped.
const TileOps& scored_tile_ops(Scoring, int vectors);

// From rows of a mask, one a lane of a tile of so many vectors, to what a batch of as many keys is given: bias[key][lane] in log2 units, 0 where
// the number is -inf, and in seen[key] the lanes where it is not. `bias` is 64-byte aligned.
void mask_to_lanes(const float* const* rows, index_t keys, int vectors, float* bias, std::uint64_t* seen);

// How many vectors the next tile has where so many queries are left.
inline int tile_vectors(index_t queries, index_t vector) {
  if (queries > 3 * vector && queries <= 4 * vector) return 2;  // 2 + 2 beats 3 + 1
  return static_cast<int>(std::min<index_t>(ceil_div(queries, vector), 3));
}

// A tile's arrays, and their floats.
constexpr index_t tile_floats(index_t lanes, const TileShape& shape) { return lanes * (shape.head_dim + shape.value_dim + 3); }
inline Tile tile_in(float* memory, index_t lanes, const TileShape& shape) {
  Tile tile{.qt = memory, .fresh = true, .factor = 1};
  tile.ot = tile.qt + lanes * shape.head_dim;
  tile.minus_ref = tile.ot + lanes * shape.value_dim;
  tile.sum = tile.minus_ref + lanes;
  tile.batch_sum = tile.sum + lanes;
  return tile;
}

}  // namespace attn::kernels
