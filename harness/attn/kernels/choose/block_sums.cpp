#include "attn/kernels/choose/block_sums.hpp"

#include <algorithm>
#include <cmath>

#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

void pool_blocks(index_t m, index_t d, Rows x, index_t block, bool up_to_first, bool mean, double* to) {
  double running[widest_head] = {};
  float sums[widest_head];
  for (index_t u = 0, next = 0; u * block < m; ++u) {
    const index_t end = up_to_first ? u * block + 1 : std::min(m, (u + 1) * block);
    std::fill_n(sums, d, 0.0f);
    add_column_sums(end - next, d, {x.data + next * x.stride, x.stride}, sums);
    const double divisor = mean ? static_cast<double>(up_to_first ? end : end - next) : 1;
    for (index_t e = 0; e < d; ++e) {
      running[e] = (up_to_first ? running[e] : 0) + static_cast<double>(sums[e]);
      to[u * d + e] = running[e] / divisor;
    }
    next = end;
  }
}

void sinkhorn(index_t n, index_t iterations, float* l, float* scratch) {
  float* const most = scratch + n * n;
  float* const total = most + n;
  const Into logits{l, n}, exps{scratch, n};
  const auto logsumexp = [&](index_t i) { return most[i] + std::log(total[i]); };
  for (index_t iteration = 0; iteration < iterations; ++iteration) {
    row_max(n, n, logits, most);
    exp_features(n, n, logits, most, 1, 0, exps);
    std::fill_n(total, n, 0.0f);
    add_row_sums(n, n, exps, total);
    for (index_t u = 0; u < n; ++u) {
      const float shift = logsumexp(u);
      for (index_t w = 0; w < n; ++w) l[u * n + w] -= shift;
    }
    std::copy_n(l, n, most);
    raise_column_max(n, n, logits, most);
    exp_minus(n, n, logits, most, exps);
    std::fill_n(total, n, 0.0f);
    add_column_sums(n, n, exps, total);
    for (index_t w = 0; w < n; ++w) total[w] = logsumexp(w);
    for (index_t u = 0; u < n; ++u) {
      for (index_t w = 0; w < n; ++w) l[u * n + w] -= total[w];
    }
  }
  std::fill_n(most, n, 0.0f);
  exp_minus(n, n, logits, most, logits);
}

index_t largest_entry(const float* row, index_t n) {
  index_t best = 0;
  for (index_t w = 1; w < n; ++w) best = row[w] > row[best] ? w : best;
  return best;
}

}  // namespace attn::kernels
