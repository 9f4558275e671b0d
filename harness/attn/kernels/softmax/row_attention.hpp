// Softmax attention of one small group of queries, from inside a task: rows of Q, K, V and the output stand anywhere, and who
// sees whom is decided by numbers that queries and keys carry. For variants with many groups of a few dozen rows: nothing is
// sorted, cut or planned for a group, and the rows of the next are fetched while this one is computed. What can be said as a
// schedule of positions, or has long lists of keys, belongs to the engine (engine.hpp), which runs on the same tiles.
//
//   attend({.q = {q, d, own}, .out = {out, dv, own}, .count = 64, .keys = runs}, workspace, worker);
#pragma once

#include <cstdint>
#include <span>

#include "attn/core/problem.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/softmax/tile.hpp"

namespace attn::kernels {

// Row i is number[i], or i where there are no numbers.
struct ListedRows {
  const float* data = nullptr;
  index_t stride = 0;
  const std::int32_t* number = nullptr;

  const float* row(index_t i) const { return data + (number != nullptr ? number[i] : i) * stride; }
};
struct ListedOutput {
  float* data = nullptr;
  index_t stride = 0;
  const std::int32_t* number = nullptr;

  float* row(index_t i) const { return data + (number != nullptr ? number[i] : i) * stride; }
};

// A key is seen where key - query lies in [from, to] or, if `outside`, where it does not. With positions for numbers
// [lowest, 0] is causality and [0, 0] outside is everybody but oneself; with groups for numbers [0, 0] is the own group.
struct SightRule {
  static constexpr std::int32_t lowest = -(1 << 30);

  const std::int32_t* query;  // a number for each query of the group, from 0 to 2^30; so keys
  const std::int32_t* key;    // a number for each key of the run
  std::int32_t from, to;
  bool outside = false;
};

struct RowKeys {
  ListedRows k, v;
  index_t count = 0;
  std::span<const SightRule> rules = {};  // all of them hold where a key is seen
};

struct FetchRows {
  ListedRows rows;
  index_t count = 0;
};

struct RowGroup {
  ListedRows q;
  ListedOutput out;                                     // zeros for a query that sees no key
  index_t count = 0;                                    // of queries
  std::span<const RowKeys> keys;                        // a key in two of them counts twice
  ListedOutput lse = {};                                // optional, stride 1: ln sum exp(logit), -inf for a query that sees no key
  bool resume = false;                                  // out and lse hold what was found among other keys: go on from there
  std::span<const FetchRows> soon_k = {}, soon_v = {};  // to fetch meanwhile: rows of head_dim, of value_dim floats
};

class RowAttention {
 public:
  // head_dim and value_dim from 1 to 256; weights are exp(scale q.k).
  RowAttention(index_t head_dim, index_t value_dim, double scale, WorkspacePlan&);

  void operator()(const RowGroup&, const Workspace&, int worker) const;

 private:
  struct Batches;

  void attend(const RowGroup&, index_t first, index_t count, const TileOps&, Tile&, Batches&) const;

  TileShape shape_;
  float factor_;           // on q: scores in log2 units
  const TileOps* ops_[3];  // by vectors - 1
  Booking<float> tile_, weights_;
  Booking<std::byte> batches_;
};

}  // namespace attn::kernels
