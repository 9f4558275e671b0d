// Small and thin matrix products in float, on the calling thread, without allocation. The left operand is read element by
// element and broadcast, so any strides will do and a transpose costs nothing; the lanes run along the rows of the right
// operand and of the result, which are contiguous.
#pragma once

#include "attn/core/problem.hpp"

namespace attn::kernels {

// Element (i, k) is data[i * row + k * step].
struct Left {
  const float* data;
  index_t row;
  index_t step = 1;
};

// Contiguous rows, `stride` apart: to read and to write.
struct Rows {
  const float* data = nullptr;
  index_t stride = 0;
};
struct Into {
  float* data;
  index_t stride;
  operator Rows() const { return {data, stride}; }
};

// Triangles: element (i, j) counts only if j <= i + diagonal.
enum class Lower {
  none,
  left,    // of the left operand, which holds zeros elsewhere: they are skipped by the block
  result,  // of the result: zeros elsewhere
};

// Rows that the caller will use next, fetched to L2 line by line while the product runs, as far as its steps suffice: at one
// every dozen cycles they never wait for each other, and the hardware sees no stream that panels interrupt.
struct Fetch {
  const float* data = nullptr;
  index_t stride = 0, rows = 0, columns = 0;
};

inline constexpr index_t max_below = 128;

struct GemmOptions {
  bool add = false;                  // to what the result holds
  const float* row_scale = nullptr;  // result row i is multiplied by row_scale[i], what it held included
  Rows below = {};                   // more rows of b, after its k: the left operand has k + below_k columns
  index_t below_k = 0;               // at most max_below
  Lower lower = Lower::none;
  index_t diagonal = 0;
  Fetch fetch[3] = {};
};

// c[m,n] = a[m,k] b[k,n].
void gemm(index_t m, index_t n, index_t k, Left a, Rows b, Into c, const GemmOptions& options = {});

}  // namespace attn::kernels
