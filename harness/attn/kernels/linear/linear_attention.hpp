// Attention whose weights factor through features: w_ij = phi_q(q_i) . phi_k(k_j), out_i = sum_j w_ij v_j / n_i with
// n_i = guard(sum_j w_ij). Cost is linear in the length: the keys are folded into a state S = phi_k(K)^T V, z = phi_k(K)^T 1.
// Features live only as panels of some tokens, which the caller's maps fill.
#pragma once

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// Tokens first .. first + count - 1 of one head, to be turned into rows of features. `head` is a kv head for keys.
struct TokenPanel {
  index_t batch, head, first, count;
  Rows from;
  Into to;
  // Keys write a number for each token here; queries read the largest one among the keys that they see.
  float* peak;
  // Queries, when not causal: the sum of the features of all keys.
  const float* total;
  int worker;
};

class LinearAttention {
 public:
  using FeatureMap = FunctionRef<void(const TokenPanel&)>;
  using Denominators = void (*)(index_t count, float* n);  // n_i becomes 1 / guard(n_i)
  // Writes the gates of `count` tokens: g_t in S_t = g_t S_(t-1) + (1 - g_t) phi_k(k_t) v_t, and so for z. Causal only, one
  // kv head for each head.
  using GateMap = FunctionRef<void(index_t batch, index_t head, Rows keys, index_t count, float* to)>;

  static constexpr index_t max_panel = 64;  // tokens

  // No denominators: null. `peaks`: the maps use TokenPanel::peak.
  LinearAttention(const Problem& p, index_t features, Denominators denominators, WorkspacePlan& workspace, bool peaks = false);

  struct Views {
    View<const float, 4> q, k, v;
    View<float, 4> out;

    Views(const View<const float, 4>& q_, const View<const float, 4>& k_, const View<const float, 4>& v_,
          const View<float, 4>& out_)
        : q(q_), k(k_), v(v_), out(out_) {}
    // NOLINTNEXTLINE(google-explicit-constructor): the engine's door
    Views(const Arrays& a) : Views(a.q.f32(), a.k.f32(), a.v.f32(), a.out.f32_out()) {}
  };
  void run(const Views& arrays, const Workspace& workspace, FeatureMap query, FeatureMap key, const GateMap* gate = nullptr) const;

 private:
  // S [features, value_dim], z [features], the peak and the product of gates of some keys.
  struct State {
    float* sums;
    float* total;
    float* peak;
    float* decay;
  };
  struct Scratch;
  class Run;

  index_t state_size() const { return stride_ * (p_.value_dim + 1) + 16; }

  Problem p_;
  index_t features_;
  index_t stride_;        // features, to a multiple of 16
  index_t panel_;         // tokens
  index_t segments_ = 1;  // of each head's tokens, when heads alone do not fill the threads
  Denominators denominators_;
  bool peaks_;
  Booking<float> scratch_;  // of a worker: its state and panels
  Booking<float> states_;   // of the segments
};

template <auto guard>
void reciprocals(index_t count, float* n) {
  for (index_t i = 0; i < count; ++i) n[i] = 1 / guard(n[i]);
}

}  // namespace attn::kernels
