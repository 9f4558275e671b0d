// The gradient of GatedState of form delta with a gate a token, for unit queries and keys, in self-attention with a kv head for each head:
//   H = g_t S_(t-1),  S_t = H + k^_t (beta_t (v_t - H^T k^_t))^T,  out_t = scale S_t^T q^_t,  x^ = x / sqrt(|x|^2 + 1e-6)
// Panels as the forward pass has them, whose states are made again and kept; then from the last one to the first, with the gradient of the
// state between two. Within a panel the corrections solve a triangle, so their gradients solve its transpose, from the last token on.
#pragma once

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/exec/workspace.hpp"

namespace attn::kernels {

class DeltaBackward {
 public:
  // Books nothing unless the plan is for training; then the states of all panels of a head for each worker.
  DeltaBackward(const Problem& p, WorkspacePlan& workspace);

  // [B,H,N] each, for the caller to fill before `run`, and to read after it.
  struct OfTokens {
    View<float, 3> log_gate, beta;
    View<float, 3> d_log_gate, d_beta;
  };
  OfTokens of_tokens(const Workspace& workspace) const;
  // Writes all of d_q, d_k and d_v.
  void run(const Arrays& arrays, const InputGradients& gradients, float scale, const Workspace& workspace) const;

 private:
  struct Scratch;
  class Run;
  index_t panels() const;

  Problem p_;
  Booking<float> of_tokens_, scratch_;
};

}  // namespace attn::kernels
