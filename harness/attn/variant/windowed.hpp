// What pages share that are softmax attention with other logits, over all keys or over a window of them.
#pragma once

#include <cstdlib>

#include "attn/kernels/softmax/keys.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

inline constexpr const char* window_doc = "keys up to so many minus one away are seen; 0: all";

// Keys that a query sees to each side, of option `window`.
inline index_t reach_of(index_t window) { return window > 0 ? window - 1 : kernels::anywhere; }
inline bool within_window(index_t window, index_t i, index_t j) { return std::abs(i - j) <= reach_of(window); }

inline Cost windowed_cost(const Problem& p, index_t window) {
  const index_t reach = reach_of(window);
  return softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, i - reach, i + reach); }),
                      [&](index_t i, SeenKeys& seen) { seen.add(i, i - reach, i + reach); });
}

inline StateSpec windowed_state(const Problem& p, index_t window) {
  return kept_tokens(p, window > 0 ? (p.causal ? 1 : 2) * (window - 1) + 1 : p.kv_len);
}

}  // namespace attn
