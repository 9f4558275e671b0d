// For definitions of variants that choose their keys from the data, by tables that differ between batch items.
#pragma once

#include "attn/variant/variant.hpp"

namespace attn {

// The mask of [B,H,rows,M]: true where chosen(batch, head, row, key) and, for causal problems, the key is not after the row's position.
template <class T, class F>
Mask chosen_pairs(const Problem& p, const Values<T>& in, F chosen) {
  const auto rows = static_cast<index_t>(in.position.size());
  return mask({p.batch, p.heads, rows, p.kv_len}, [&](index_t b, index_t h, index_t row, index_t j) {
    return (!p.causal || j <= in.position[static_cast<std::size_t>(row)]) && chosen(b, h, row, j);
  });
}

// out_i = sum_j softmax_j(q_i.k_j / sqrt(D)) v_j over the pairs that the mask [B,H,rows,M] allows; zeros where it allows none.
template <class T>
Tensor<T> masked_attention(const Problem& p, const Values<T>& in, const Mask& allowed) {
  const Tensor<T> logits = by_query_head(p, matmul(by_kv_head(p, in.q), transpose(in.k))) * static_cast<T>(p.scale());
  return by_query_head(p, matmul(by_kv_head(p, softmax(logits, allowed)), in.v));
}

}  // namespace attn
