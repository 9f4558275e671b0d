// out = W V for every head, with W [N,M] given by blocks of rows: weights that no dot product makes, or that stand in a table.
// W is never whole in memory unless the caller holds it.
#pragma once

#include "attn/core/view.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"

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

  // Reads of the problem batch, heads, kv_heads, q_len, kv_len, value_dim and causal.
  WeightedSum(const Problem& p, Kind kind, Sharing sharing, WorkspacePlan& workspace);

  // `weights` returns where the block stands: block.to, or memory of its own. It is called from several threads. Rows that see
  // no key give zeros.
  using Weights = FunctionRef<Rows(const WeightBlock&)>;
  void run(const View<const float, 4>& values, const View<float, 4>& out, const Workspace& workspace, Weights weights) const;

  // The gradient of a number whose gradient with respect to `out` is d_out, for a plan of self-attention for training with
  // Kind::softmax and Sharing::none or batch; heads have values of their own. Writes d_v, and hands out the gradient of the logits
  // block by block: `weights` is asked for a block as in the run, then `logits` is called with its gradient, zeros for hidden
  // keys, summed over the batch where the batch shares the block. One thread takes all blocks of a head in every batch item, the
  // last rows first: what belongs to a head can be added up without care.
  using LogitGradient = FunctionRef<void(const WeightBlock&, Rows d_logits)>;
  void backward(const View<const float, 4>& values, const View<const float, 4>& d_out, const View<float, 4>& d_v,
                const Workspace& workspace, Weights weights, LogitGradient logits) const;

 private:
  WeightBlock block_of(index_t batch, index_t head, index_t first, index_t rows, Into to, int worker) const;
  void finish(const WeightBlock& block, Rows from) const;
  void multiply(const WeightBlock& block, Rows weights, const View<const float, 4>& values, const View<float, 4>& out) const;

  Problem p_;
  Kind kind_;
  Sharing sharing_;
  index_t rows_;  // of a block
  Booking<float> scratch_;
  index_t backward_rows_ = 0, backward_stride_ = 0;
  Booking<float> transposed_, backward_scratch_;
};

// Every head of x [B,H,M,D] transposed to `to` [B,H,D,M], in parallel: keys as the right operand of a product.
void transpose_heads(const View<const float, 4>& x, const View<float, 4>& to);

// Zeros, in parallel: the gradient of an input that is not read.
void clear_heads(const View<float, 4>& x);

}  // namespace attn::kernels
