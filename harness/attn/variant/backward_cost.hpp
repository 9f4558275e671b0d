// For the backward_cost of pages whose pass is not the fused one's (softmax_backward_cost).
#pragma once

#include "attn/variant/registry.hpp"

namespace attn {

// Where the keys were chosen from the data: what chose them is not done again.
inline Cost chosen_keys_backward_cost(const Problem& p, Cost forward) {
  forward.flops = 2 * forward.exps * static_cast<double>(p.head_dim + p.value_dim);
  return softmax_backward_cost(forward);
}

// Where logits that are no products of queries and keys are made again: two products for each of the forward pass, and the product
// itself but for that with V, of `value_flops`.
inline Cost remade_logits_backward_cost(const Cost& forward, double value_flops) {
  return {.flops = 3 * forward.flops - value_flops, .bytes = 2 * forward.bytes, .exps = forward.exps};
}

}  // namespace attn
