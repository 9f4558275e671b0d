// Q, K and V as a problem stores them.
#pragma once

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"
#include "attn/exec/buffer.hpp"
#include "attn/inputs/tensors.hpp"

namespace attn {

// Row-major in one block, of the problem's number types, and placed as Tensors are.
struct StoredTensors {
  Buffer memory;
  Array q, k, v;

  Arrays arrays() const { return {.q = q, .k = k, .v = v}; }
  StoredTensors copy() const;  // memory of its own
};

// Each number rounded once to nearest; what the type holds exactly passes unchanged. Refused where numbers are too large for it, with how
// many they are, and where rows are no whole blocks. Floats keep their memory. In the caller's arena.
Result<StoredTensors> store(Tensors floats, const Problem& p);

}  // namespace attn
