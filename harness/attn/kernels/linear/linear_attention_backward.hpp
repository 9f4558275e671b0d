// The gradient of LinearAttention (linear_attention.hpp), for denominators n + constant, without gates and peaks.
//
// With u_i = (dO_i / n_i, -dO_i.O_i / n_i) and y_j = (v_j, 1), one column more for the denominator:
//   d phi_q(q_i) = sum_j (u_i.y_j) phi_k(k_j),  d phi_k(k_j) = sum_i (u_i.y_j) phi_q(q_i),  dV_j = sum_i w_ij dO_i / n_i
// each of which is linear attention again: over the keys before i the first, over the queries after j the others. So two sweeps,
// one with the sum over keys so far, one from the end with the sum over queries so far; linear in the length as the forward pass.
// (Katharopoulos et al. 2020, arXiv:2006.16236, section 3.3.1)
#pragma once

#include "attn/kernels/linear/linear_attention.hpp"

namespace attn::kernels {

// Features of a panel's tokens and the gradient with respect to them, to be taken back to the tokens.
struct FeaturePanel {
  TokenPanel tokens;  // `to` is where the features stand
  Rows gradient;
  Into d_tokens;
};

class LinearAttentionBackward {
 public:
  using FeatureMap = LinearAttention::FeatureMap;
  using FeaturePull = FunctionRef<void(const FeaturePanel&)>;
  using Denominators = LinearAttention::Denominators;

  // Books nothing unless the plan is for training.
  LinearAttentionBackward(const Problem& p, index_t features, Denominators denominators, WorkspacePlan& workspace);

  struct Views {
    View<const float, 4> q, k, v, out, d_out;
    View<float, 4> d_q, d_k, d_v;

    Views(const Arrays& a, const InputGradients& g)
        : q(a.q.f32()),
          k(a.k.f32()),
          v(a.v.f32()),
          out(a.out.f32()),
          d_out(g.d_out.f32()),
          d_q(g.d_q.f32_out()),
          d_k(g.d_k.f32_out()),
          d_v(g.d_v.f32_out()) {}
  };
  void run(const Views&, const Workspace&, FeatureMap query, FeatureMap key, FeaturePull query_pull, FeaturePull key_pull) const;

 private:
  class Run;
  struct Scratch;
  struct OfQuery {
    float scale, minus_dot;  // 1 / n and -dO.O / n
  };

  Problem p_;
  index_t panel_;  // tokens
  index_t features_, feature_stride_;
  index_t columns_, column_stride_;  // of u and y: value_dim + 1
  Denominators denominators_;
  Booking<float> scratch_;  // of a worker
  Booking<OfQuery> of_queries_;
};

}  // namespace attn::kernels
