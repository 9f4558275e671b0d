// The keys of a prompt that its last queries attend to most. As in grouping.hpp the same floats give the same table; ties go to the key that
// comes first, and a sum that is no number loses to all others.
#pragma once

#include <cstdint>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// The weights of the last `window` queries of the prompt's, summed over these and the heads of a kv head by key; each sum's mean with its
// neighbours', `pool` in all, what lies outside counting as zero. Of the keys before the window the `keep` largest.
struct PromptRules {
  index_t prompt, window, pool, keep;  // 1 <= window <= prompt
  index_t before() const { return prompt - window; }
  index_t kept() const { return keep < before() ? keep : before(); }
};

class PromptKeys {
 public:
  PromptKeys(const Problem&, const PromptRules&, WorkspacePlan&);

  // Of a kv head: q(g, r) is the query of the group's head g at position before() + r. Writes kept() keys, ascending.
  template <class Q>
  void choose(Q q, Rows k, const Workspace& workspace, int worker, std::int32_t* to) const {
    float* const sums = start(k, workspace, worker);
    for (index_t g = 0; g < p_.heads / p_.kv_heads; ++g)
      for (index_t r = 0; r < rules_.window; ++r) add_weights(q(g, r), r, workspace, worker, sums);
    take(sums, workspace, worker, to);
  }

 private:
  float* start(Rows k, const Workspace&, int worker) const;
  void add_weights(const float* q, index_t r, const Workspace&, int worker, float* sums) const;
  void take(float* sums, const Workspace&, int worker, std::int32_t* to) const;

  Problem p_;
  PromptRules rules_;
  Booking<float> floats_;
  Booking<std::int32_t> numbers_;
};

// For a definition, on the calling thread: which keys of the prompt are kept, [B,Hk,prompt]. q [B,H,M,D] and k [B,Hk,M,D] are dense.
std::vector<bool> prompt_keys(const Problem&, const PromptRules&, const float* q, const float* k);

}  // namespace attn::kernels
