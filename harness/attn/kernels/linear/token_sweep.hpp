// One token against the state of a head: the state takes up its key and value and answers queries in one pass over its memory, which a
// step is bound by. On the calling thread, without allocation.
#pragma once

#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

struct TokenSweep {
  index_t features, value_dim;
  float* sums;   // [features, value_dim], dense
  float* total;  // [features]
  // sums = keep * sums + key value^T, total = keep * total + key. Null: they stay as they are.
  const float* key = nullptr;
  const float* value = nullptr;
  float keep = 1;
  // Afterwards row r of `out` is row r of the queries, [rows, features], times sums, times norm[r]: what `denominators` makes of their
  // products with total, unless it is null.
  index_t rows = 0;
  Rows queries = {};
  void (*denominators)(index_t count, float* n) = nullptr;
  float* norm = nullptr;
  Into out = {};
};

// The same bits whether the state is taken up and answered at once or one after the other.
void sweep_token(const TokenSweep& token);

}  // namespace attn::kernels
