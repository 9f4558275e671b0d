// Blocks of keys that queries choose by the softmax weights of compressed keys. As in grouping.hpp the same floats give the same table,
// whichever queries are asked for; ties go to the block that comes first.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// Compressed key i is the mean of the keys stride i .. stride i + block - 1, and seen from the last of them on. Block j of `select` keys scores
// the weights of compressed keys that overlap it, each times the strides that they share, over the heads of a kv head together. The first block, a
// query's own and the one before are always kept; `keep` in all.
struct CompressedRules {
  index_t block, stride, select, keep;

  index_t places() const { return keep - 3; }  // to choose
  bool always(index_t own, index_t j) const { return j == 0 || (j >= own - 1 && j <= own); }

  index_t count(index_t keys) const { return keys < block ? 0 : (keys - block) / stride + 1; }  // compressed ones
  index_t visible(index_t position) const { return count(position + 1); }
};

class CompressedChoice {
 public:
  CompressedChoice(const Problem&, const CompressedRules&, WorkspacePlan&);

  // x [B,Hk,M,any] to rows of means, [B,Hk,count,any]. On the threads of the arena, as below.
  void compress(const View<const float, 4>& x, const View<float, 4>& to) const;
  // q [B,H,N,D], compressed keys [B,Hk,count,D].
  void run(const View<const float, 4>& q, const View<const float, 4>& keys, const Workspace&) const;

  // After a run: [N, places], of each row the blocks beside those that are always kept, ascending, and -1 where there are no more.
  const std::int32_t* chosen(const Workspace&, index_t batch, index_t kv_head) const;

 private:
  friend std::vector<std::int32_t> compressed_choice(const Problem&, const CompressedRules&, const float* q,
                                                     std::span<const index_t> position, const float* k);

  void mean(Rows x, index_t width, index_t i, float* to) const;
  float* turned(const Workspace&, index_t kv_head) const;
  // `rows` queries of one head, adding their weights to `sums` [rows, count].
  template <class F>
  void weigh(Rows q, index_t rows, F position, const float* keys, float* scores, float* sums) const;
  void choose(index_t position, const float* sums, float* scores, std::int32_t* to) const;

  Problem p_;
  CompressedRules rules_;
  index_t count_, blocks_;
  Booking<float> keys_, floats_;
  Booking<std::int32_t> chosen_;
};

// For a definition, on the calling thread: [B,Hk,rows,places] for the rows of q [B,H,rows,D] at these ascending positions. q and k are dense.
std::vector<std::int32_t> compressed_choice(const Problem&, const CompressedRules&, const float* q,
                                            std::span<const index_t> position, const float* k);

}  // namespace attn::kernels
