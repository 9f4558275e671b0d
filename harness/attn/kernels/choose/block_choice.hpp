// Which blocks of keys a block of queries attends to, by scores of the two blocks. As in grouping.hpp the same floats give the same
// table, with any number of threads; ties go to the block that comes first, and a score of NaN loses to all others.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

struct BlockRules {
  enum class Score {
    mean,          // mean of the queries . mean of the keys / sqrt(D)
    antidiagonal,  // mass of softmax attention between stretches of `stride` rows, by q_(s-1-t).k_t summed over t < s / (s sqrt(D))
    similar,       // as mean, but blocks whose rows do not point the same way see, and are seen by, everybody
  };
  Score score = Score::mean;
  index_t block = 64;       // rows; the last one of a sequence may have fewer
  index_t keep = 16;        // blocks, with those that are always kept; all of these where they are more
  double cover = 0;         // share of the mass of a softmax over the scores that the blocks reach, as few as do; 0: `keep` of them
  index_t stride = 16;      // antidiagonal: divides `block`
  double similarity = 0.6;  // similar: of the mean cosine between the rows of a block, exceeded by blocks that are alike
  index_t first = 1;        // blocks that are always kept: so many at the start of the sequence,
  index_t local = 1;        // and those less than so many away from the queries' own

  bool always(index_t u, index_t w) const { return w < first || (u < w ? w - u : u - w) < local; }
};

// Of self-attention, forward or with a backward pass.
class BlockChoice {
 public:
  BlockChoice(const Problem&, const BlockRules&, WorkspacePlan&);

  // q [B,H,N,D], k [B,Hk,N,D]. On the threads of the arena.
  void run(const View<const float, 4>& q, const View<const float, 4>& k, const Workspace&) const;

  // After a run: what block u of a head's queries sees, ascending; of causal problems u and blocks before it.
  std::span<const std::int32_t> blocks(const Workspace&, index_t batch, index_t head, index_t u) const;

 private:
  friend std::vector<bool> chosen_blocks(const Problem&, const BlockRules&, const float* q, const float* k);
  struct Scratch;

  index_t strides() const;  // stretches of a sequence
  index_t rows_of(index_t block) const;
  index_t most_chosen() const;
  Scratch scratch(const Workspace&, int worker) const;
  float* keys_of(const Workspace&, index_t kv_head) const;

  // A task of each phase, of `phase_tasks`. Heads count over the batch.
  index_t key_tasks() const;
  void pool_keys(const View<const float, 4>& k, const Workspace&, index_t task, int worker) const;
  index_t choice_tasks() const;
  void choose(const View<const float, 4>& q, const Workspace&, index_t task, int worker) const;

  void means(Rows x, index_t first, index_t count, double factor, Into to) const;
  bool alike(Rows x, index_t block, const Scratch&) const;
  void score_means(Rows q, const float* keys, index_t first, index_t count, const Scratch&) const;
  void score_stretches(Rows q, const float* keys, index_t first, index_t count, const Scratch&) const;
  void choose_row(index_t u, float* scores, const std::int32_t* unlike, bool query_alike, const Scratch&, std::int32_t* list) const;
  index_t keep_best(index_t u, index_t visible, index_t take, const float* scores, const std::int32_t* unlike, const Scratch&,
                    std::int32_t* list) const;
  index_t cover_mass(index_t u, index_t visible, float* scores, const std::int32_t* unlike, const Scratch&,
                     std::int32_t* list) const;

  Problem p_;
  BlockRules rules_;
  index_t count_;     // blocks of a sequence
  index_t together_;  // blocks of queries in a task
  Booking<float> keys_, floats_;
  Booking<std::int32_t> unlike_, lists_, numbers_;
};

// For a definition, on the calling thread: element ((b H + h) blocks + u) blocks + w says whether block u of queries sees block w of keys.
// q and k are dense.
std::vector<bool> chosen_blocks(const Problem&, const BlockRules&, const float* q, const float* k);

}  // namespace attn::kernels
