// The gradient of GatedState of form add with a gate a token, in self-attention with a kv head for each head:
//   out_i = scale sum_{j<=i} g_(j+1) .. g_i w_j (q_i.k_j) v_j
// Each of d_q, d_k, d_v is such a sum again: over the keys before i of (d_out_i.v_j) k_j the first; over the queries after j, so from the end
// and with the gate of the token after in the place of each one's own, of (v_j.d_out_i) q_i and (k_j.q_i) d_out_i the others. Gates need no
// sums of their own: d ln g_t = sum_{i>=t} (q_i.d_q_i - k_i.d_k_i), all weights of later queries but those on later keys.
#pragma once

#include <array>
#include <optional>

#include "attn/core/result.hpp"
#include "attn/kernels/linear/gated_state.hpp"

namespace attn::kernels {

class GatedBackward {
 public:
  static Status supports(const Problem& p) {
    if (p.self_attention() && p.heads == p.kv_heads) return {};
    return refuse("has a backward pass of self-attention without shared heads");
  }

  // Books nothing unless the plan is for training.
  GatedBackward(const Problem& p, WorkspacePlan& workspace);

  // [B,H,N] each, for the caller to fill before `run`, and to read after it.
  struct OfTokens {
    View<float, 3> log_gate, weight;
    View<float, 3> d_log_gate, d_weight;
  };
  OfTokens of_tokens(const Workspace& workspace) const;
  // Writes all of d_q, d_k and d_v.
  void run(const Arrays& arrays, const InputGradients& gradients, float scale, const Workspace& workspace) const;

  // Where each token has a number x = w.k + b of its key, by w [H,D] and b [H]: from d_x on to w, b and, added, the keys.
  struct Readout {
    View<const float, 2> w;
    View<float, 2> d_w;
    View<float, 1> d_b;
  };
  static void pull(const View<const float, 4>& k, const View<const float, 3>& d_x, const Readout& readout,
                   const View<float, 4>& d_k);

 private:
  void of_gates(const Arrays& arrays, const InputGradients& gradients, const Workspace& workspace) const;

  Problem p_;
  std::optional<GatedState> queries_, keys_, values_;
  Booking<float> of_tokens_;
  std::array<float, widest_head> ones_;
};

}  // namespace attn::kernels
