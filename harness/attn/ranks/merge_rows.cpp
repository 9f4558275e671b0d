#include "attn/ranks/merge_rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace attn {

namespace {

constexpr float nothing = -std::numeric_limits<float>::infinity();

}  // namespace

void merge_rows(index_t rows, index_t width, float* mine, const float* theirs, bool before) {
  float* const lse = mine + rows * width;
  const float* const other_lse = theirs + rows * width;
  for (index_t row = 0; row < rows; ++row) {
    const float top = std::max(lse[row], other_lse[row]);
    if (top == nothing) continue;
    // In the order of the keys: a fused multiplication and addition rounds one of its terms and not the other.
    const float *const first = before ? theirs : mine, *const second = before ? mine : theirs;
    const float a = std::exp(first[rows * width + row] - top), b = std::exp(second[rows * width + row] - top), share = 1 / (a + b);
    for (index_t c = row * width; c < (row + 1) * width; ++c) mine[c] = (first[c] * a + second[c] * b) * share;
    lse[row] = top + std::log(a + b);
  }
}

void clear_rows(index_t rows, index_t width, float* mine) {
  std::fill_n(mine, rows * width, 0.0f);
  std::fill_n(mine + rows * width, rows, nothing);
}

}  // namespace attn
