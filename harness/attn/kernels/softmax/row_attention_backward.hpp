// The gradient of the attention of one small group of queries (row_attention.hpp), from inside a task: weights are made again from
// the log-sum-exp, some queries and keys at a time, never all at once. Five small products on copies of the rows; what falls on a
// row is added to it.
#pragma once

#include <span>

#include "attn/kernels/softmax/row_attention.hpp"

namespace attn::kernels {

struct RowGroupGradients {
  // For each query: what all runs with its lse came to, the gradient of some number with respect to that, and where to add.
  ListedRows out, d_out;
  ListedOutput d_q;
  struct Keys {
    ListedOutput d_k, d_v;
  };
  std::span<const Keys> keys;  // where to add, for each element of RowGroup::keys
};

class RowAttentionBackward {
 public:
  // As RowAttention. Books nothing unless the plan is for training.
  RowAttentionBackward(index_t head_dim, index_t value_dim, double scale, WorkspacePlan&);

  // The group's `out`, `resume` and what to fetch are not read; `lse` is. Everything must be finite but the lse of queries that
  // saw no key.
  void operator()(const RowGroup&, const RowGroupGradients&, const Workspace&, int worker) const;

 private:
  index_t d_, dv_;
  float scale_;
  Booking<float> scratch_;
};

}  // namespace attn::kernels
