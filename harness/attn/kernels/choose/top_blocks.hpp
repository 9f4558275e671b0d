// For each query the past blocks of keys whose mean has the largest product with it. As in grouping.hpp the same floats give the same
// table, whichever queries are asked for; ties go to the block that comes first, and a product of NaN is never chosen.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

class TopBlocks {
 public:
  // A query at position i chooses among the blocks 0 .. i / block - 1, all of whose keys come before it.
  TopBlocks(const Problem&, index_t block, index_t take, WorkspacePlan&);

  // q [B,H,N,D], k [B,Hk,M,D]. On the threads of the arena.
  void run(const View<const float, 4>& q, const View<const float, 4>& k, const Workspace&) const;

  // After a run: [N, take], of each row the numbers of its blocks, ascending, and -1 where there are no more.
  const std::int32_t* chosen(const Workspace&, index_t batch, index_t head) const;

 private:
  friend std::vector<std::int32_t> top_blocks(const Problem&, index_t block, index_t take, const float* q,
                                              std::span<const index_t> position, const float* k);

  float* means(const Workspace&, index_t kv_head) const;
  index_t mean_tasks() const;
  void average(const View<const float, 4>& k, const Workspace&, index_t task, int worker) const;
  // `count` rows of q, at most `rows_together`; position(i) of row i does not fall.
  template <class F>
  void choose(Rows q, index_t count, F position, const float* means, float* scores, std::int32_t* to) const;

  Problem p_;
  index_t block_, take_;
  index_t blocks_;  // complete ones
  Booking<float> means_, floats_;
  Booking<std::int32_t> chosen_;
};

// For a definition, on the calling thread: [B,H,rows,take] for the rows of q [B,H,rows,D] at ascending positions. q and k are dense.
std::vector<std::int32_t> top_blocks(const Problem&, index_t block, index_t take, const float* q, std::span<const index_t> position,
                                     const float* k);

}  // namespace attn::kernels
