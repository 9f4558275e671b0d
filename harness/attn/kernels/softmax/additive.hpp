// Softmax attention with an additive score: logit_ij = sum_c w_c tanh(a_ic + b_jc), a and b linear in q and k.
// tanh(a + b) = 1 - 2 / (1 + e^2a e^2b): exponentials once for each token, none for pairs, and one division for four tanh. That is
// right for any a as long as |b| <= 30; a key with a larger b takes an exponential for each query and c.
#pragma once

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"

namespace attn::kernels {

class AdditiveAttention {
 public:
  static constexpr index_t max_size = 1024;

  AdditiveAttention(const Problem& p, index_t size, WorkspacePlan& workspace);

  struct Views {
    View<const float, 4> q, k, v;
    View<float, 4> out;
    View<const float, 3> query_weights, key_weights;  // [H,D,size]
    View<const float, 2> weights;                     // [H,size]

    Views(const Arrays& a, const View<const float, 3>& query_weights_, const View<const float, 3>& key_weights_,
          const View<const float, 2>& weights_)
        : q(a.q.f32()),
          k(a.k.f32()),
          v(a.v.f32()),
          out(a.out.f32_out()),
          query_weights(query_weights_),
          key_weights(key_weights_),
          weights(weights_) {}
  };
  void run(const Views& arrays, const Workspace& workspace) const;

 private:
  void project(const View<const float, 4>& x, const View<const float, 3>& weights, bool keys, const Workspace& workspace) const;
  void score(const WeightBlock& block, const float* weights, const Workspace& workspace) const;

  Problem p_;
  index_t size_, padded_;   // padded_: to a multiple of 4
  Booking<float> queries_;  // a [B,H,N,padded]
  Booking<float> keys_;     // e^2b, or b of a wide key [B,H,padded,M]
  Booking<float> wide_;     // [B,H,M] 1 for a wide key, or 0
  Booking<float> scratch_;
  WeightedSum sum_;
};

}  // namespace attn::kernels
