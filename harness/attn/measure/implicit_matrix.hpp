// The matrix P' of an operator out = P' V, or out = P' x of one that reads x: the weights of variants that have none of their own, too.
#pragma once

#include <string>

#include "attn/cell/cell_run.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

inline constexpr index_t longest_matrix = 2048;  // queries and keys: 128 MiB for 8 heads

// Why no matrix is found of such a problem, before anything is run.
Status has_matrix(const Problem& p);

// [batch, heads, q_len, kv_len] of a cell that has run: the fast path again, on blocks of the identity. Refuses what has_matrix() does, and
// outputs that are no such product: where channels are mixed, a bias is added, or weights depend on what they multiply.
Result<Elements<float>> implicit_matrix(const CellRun& cell);

}  // namespace attn
