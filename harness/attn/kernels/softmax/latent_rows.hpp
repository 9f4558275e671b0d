// Softmax attention of queries to latents: rows that all heads of a kv head share, as keys whole and as values but for their last part. The rows
// of the group's heads stand in the lanes of one tile (tile.hpp), so that a latent is read once for all of them.
#pragma once

#include <cstdint>

#include "attn/core/problem.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/softmax/row_attention.hpp"

namespace attn::kernels {

class LatentRows {
 public:
  // A latent row (c, r) of head_dim + value_dim numbers, at most 256: c is all of k but its last `shared` numbers, then all of v; r those
  // of k.
  LatentRows(const Problem&, index_t shared, WorkspacePlan&);

  struct Arrays {
    View<const float, 4> q;  // [B,H,N,D + Dv]          meets (c, r)
    View<const float, 4> k;  // [B,Hk,M,D]
    View<const float, 4> v;  // [B,Hk,M,Dv]
    View<float, 4> out;      // [B,H,N,D + Dv - shared]  sum of weights times c; zeros for a query that sees no key
  };
  void run(const Arrays&, const Workspace&) const;

 private:
  // Rows of a task: query i of its heads, then query i + 1.
  struct Task {
    index_t batch, kv_head, first, rows, part;
  };
  Task task(index_t number) const;
  index_t width() const { return p_.head_dim + p_.value_dim; }
  index_t latent() const { return width() - shared_; }
  index_t rows_of_group() const { return p_.q_len * (p_.heads / p_.kv_heads); }

  void pack(const Arrays&, const Task&, index_t first, index_t count, Into to) const;
  void attend(const Arrays&, const Task&, const Workspace&, int worker) const;
  void merge(const Arrays&, const Workspace&, index_t row) const;
  float* part_of(const Workspace&, index_t part, index_t kv_head, index_t row) const;

  Problem p_;
  index_t shared_;
  index_t chunk_;      // keys that are laid side by side at a time
  index_t row_tasks_;  // of a kv head
  index_t parts_ = 1;  // that the keys are cut into, each a task
  index_t part_keys_;
  RowAttention attention_;
  Booking<float> packed_, parts_memory_;
  Booking<std::int32_t> numbers_, positions_;
};

}  // namespace attn::kernels
