// What is computed: the shape of one attention problem.
#pragma once

#include <cmath>
#include <string>
#include <string_view>

#include "attn/core/dtype.hpp"
#include "attn/core/result.hpp"

namespace attn {

// What is done with a problem: the forward pass, it and the backward pass that training makes after it, or steps: the last q_len tokens of a
// sequence that has kv_len then, from a state of those before (attn/exec/state.hpp).
enum class Pass { forward, forward_backward, decode };
std::string_view to_string(Pass pass);
Result<Pass> parse_pass(std::string_view name);

// Extents of a mask [batch,heads,q_len,kv_len] of numbers that are added to logits, 1 along an axis on which it is the same; that of the
// keys is kv_len. No extents: no mask.
struct MaskExtents {
  index_t batch = 0, heads = 0, rows = 0;

  bool given() const { return batch > 0; }
  friend bool operator==(const MaskExtents&, const MaskExtents&) = default;
};

// The widest head_dim and value_dim that kernels are made for.
inline constexpr index_t widest_head = 256;

// Layouts: Q [batch, heads, q_len, head_dim], K [batch, kv_heads, kv_len, head_dim],
// V [batch, kv_heads, kv_len, value_dim], output [batch, heads, q_len, value_dim].
struct Problem {
  index_t batch = 1;
  index_t heads = 8;
  index_t kv_heads = 8;
  index_t q_len = 1024;
  index_t kv_len = 1024;
  index_t head_dim = 64;
  index_t value_dim = 64;
  bool causal = false;
  DType dtype = DType::f32;     // of Q
  DType kv_dtype = DType::f32;  // of K and V
  Pass pass = Pass::forward;
  bool ragged = false;    // sequences have lengths of their own (Arrays::lengths), none longer than kv_len
  index_t page_rows = 0;  // K and V lie in pages of so many tokens (Arrays::layout); 0: in a row
  MaskExtents mask = {};  // of the array `mask` beside q, k and v

  // 1/sqrt(head_dim): the factor on q.k wherever a variant's page names no other.
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(head_dim)); }

  // Row i of Q stands at this key position: with q_len != kv_len the two sequences end together, as in FlashAttention.
  index_t query_position(index_t row) const { return row + kv_len - q_len; }

  // Query head h reads this kv head: contiguous groups, as in grouped-query attention.
  index_t kv_head(index_t head) const { return head * kv_heads / heads; }

  bool self_attention() const { return q_len == kv_len; }

  // One sequence of `length` keys of a ragged batch. In self-attention it has as many queries, the first rows of Q, and the output of
  // rows past them is zero; else all q_len queries, which end with its keys.
  Problem sequence(index_t length) const {
    Problem own = *this;
    own.batch = 1;
    own.ragged = false;
    own.kv_len = length;
    if (self_attention() && pass != Pass::decode) own.q_len = length;
    return own;
  }

  friend bool operator==(const Problem&, const Problem&) = default;
};

inline std::string to_string(const Problem& p) {
  auto text = "batch=" + std::to_string(p.batch) + " heads=" + std::to_string(p.heads);
  if (p.kv_heads != p.heads) text += " kv_heads=" + std::to_string(p.kv_heads);
  text += " q_len=" + std::to_string(p.q_len);
  if (p.kv_len != p.q_len) text += " kv_len=" + std::to_string(p.kv_len);
  text += " head_dim=" + std::to_string(p.head_dim);
  if (p.value_dim != p.head_dim) text += " value_dim=" + std::to_string(p.value_dim);
  text += std::string(p.causal ? " causal" : "") + (p.ragged ? " ragged" : "");
  if (p.mask.given()) {
    text += " mask=";
    for (const index_t extent : {p.mask.batch, p.mask.heads, p.mask.rows}) text += std::to_string(extent) + "x";
    text += std::to_string(p.kv_len);
  }
  return p.page_rows > 0 ? text + " paged:" + std::to_string(p.page_rows) : text;
}

}  // namespace attn
