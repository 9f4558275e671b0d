#include "attn/measure/head_figures.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "attn/core/assert.hpp"

namespace attn {

HeadFigures head_figures(const Problem& p, std::span<const float> weights) {
  ATTN_ASSERT(std::ssize(weights) == p.q_len * p.kv_len);
  HeadFigures f{.least_sum = std::numeric_limits<double>::max(), .largest_sum = std::numeric_limits<double>::lowest()};
  std::vector<double> looked_at(static_cast<std::size_t>(p.kv_len));
  double rows = 0;
  for (index_t i = 0; i < p.q_len; ++i) {
    const auto row = weights.subspan(static_cast<std::size_t>(i * p.kv_len), static_cast<std::size_t>(p.kv_len));
    double size = 0, sum = 0;
    for (const float w : row) size += std::abs(static_cast<double>(w)), sum += static_cast<double>(w);
    if (size <= 0) continue;
    rows += 1;
    f.least_sum = std::min(f.least_sum, sum);
    f.largest_sum = std::max(f.largest_sum, sum);
    for (index_t j = 0; j < p.kv_len; ++j) {
      const double share = std::abs(static_cast<double>(row[static_cast<std::size_t>(j)])) / size;
      if (share > 0) f.entropy -= share * std::log2(share);
      f.distance += share * static_cast<double>(std::abs(p.query_position(i) - j));
      looked_at[static_cast<std::size_t>(j)] += share;
    }
  }
  if (rows <= 0) return {};
  f.entropy /= rows;
  f.distance /= rows;
  const auto most = std::ranges::max_element(looked_at);  // the first of several
  f.sink = most - looked_at.begin();
  f.sink_share = *most / rows;
  return f;
}

}  // namespace attn
