// out = W V for every head, with W [N,M] given by blocks of rows: weights that no dot product makes, or that stand in a table.
// W is never whole in memory unless the caller holds it.
#pragma once

#include "attn/core/view.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/gemm.hpp"

namespace attn::kernels {

// Rows first .. first + rows - 1 of W, of which the columns 0 .. keys - 1 are asked for. Row i stands at key position
// position + i; with causal problems it sees the keys up to there.
struct WeightBlock {
  index_t batch, head, first, rows, keys, position;
  Into to;  // where the block may be written
  int worker;
};

class WeightedSum {
 public:
  static constexpr index_t max_rows = 192;  // of a block

  enum class Kind {
    softmax,  // the caller gives logits: their softmax over the keys that a row sees
    weights,  // the caller writes weights to `to`: they count for the keys that a row sees
    table,    // the caller points at weights, zeros for keys that a row does not see
  };
  // Who has the same weights, so that each block is asked for once and read while it is near.
  enum class Sharing {
    none,
    batch,  // a head of every batch item
    all,    // every head of every batch item
  };

  // Of the problem: batch, heads, kv_heads, q_len, kv_len, value_dim and causal.
  WeightedSum(const Problem& p, Kind kind, Sharing sharing, WorkspacePlan& workspace);

  // `weights` returns where the block stands: block.to, or memory of its own. It is called from several threads. Rows that see
  // no key give zeros.
  using Weights = FunctionRef<Rows(const WeightBlock&)>;
  void run(const View<const float, 4>& values, const View<float, 4>& out, const Workspace& workspace, Weights weights) const;

 private:
  void finish(const WeightBlock& block, Rows from) const;
  void multiply(const WeightBlock& block, Rows weights, const View<const float, 4>& values, const View<float, 4>& out) const;

  Problem p_;
  Kind kind_;
  Sharing sharing_;
  index_t rows_;  // of a block
  Booking<float> scratch_;
};

// Every head of x [B,H,M,D] transposed to `to` [B,H,D,M], in parallel: keys as the right operand of a product.
void transpose_heads(const View<const float, 4>& x, const View<float, 4>& to);

}  // namespace attn::kernels
