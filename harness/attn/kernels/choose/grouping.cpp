#include "attn/kernels/choose/grouping.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "attn/core/assert.hpp"
#include "attn/kernels/choose/selection.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

void sort_by_group(std::span<const std::int32_t> group, std::span<std::int32_t> order, std::span<std::int32_t> begin) {
  ATTN_ASSERT(order.size() == group.size() && !begin.empty());
  std::fill(begin.begin(), begin.end(), 0);
  // Two places on, so that a group's counter is where its next item goes and ends as the begin of the next group.
  const auto counter = begin.subspan(1);
  for (const std::int32_t g : group) {
    if (const auto at = static_cast<std::size_t>(g) + 1; at < counter.size()) ++counter[at];
  }
  for (std::size_t g = 1; g < counter.size(); ++g) counter[g] += counter[g - 1];
  for (std::size_t i = 0; i < group.size(); ++i) {
    order[static_cast<std::size_t>(counter[static_cast<std::size_t>(group[i])]++)] = static_cast<std::int32_t>(i);
  }
}

void AngularHash::operator()(index_t n, index_t dim, Rows x, const float* rotations, float* scratch, std::int32_t* bucket,
                             index_t stride) const {
  const index_t all = rounds * columns();
  float* projected = scratch;
  float* turned = scratch + block * all;
  std::fill_n(turned, block * all, 0.0f);
  std::int32_t low[block], high[block];
  for (index_t row = 0; row < n; row += block) {
    const index_t count = std::min(block, n - row);
    gemm(count, all, dim, {x.data + row * x.stride, x.stride}, {rotations, all}, {projected, all});
    transpose(count, all, {projected, all}, {turned, block});
    for (index_t r = 0; r < rounds; ++r) {
      const float* y = turned + r * columns() * block;
      argmax_of_both_signs(block, first / 2, y, low);
      std::fill_n(high, block, 0);
      if (second > 0) argmax_of_both_signs(block, second / 2, y + first / 2 * block, high);
      for (index_t i = 0; i < count; ++i) bucket[r * stride + row + i] = low[i] + static_cast<std::int32_t>(first) * high[i];
    }
  }
}

void update_centroids(const CentroidState& s, index_t n, Rows x, double decay) {
  const auto keep = static_cast<float>(decay), move = static_cast<float>(1 - decay);
  std::vector<std::int32_t> nearest(static_cast<std::size_t>(n), 0);
  for (index_t i = 0; i < n; ++i) {
    float best = 0;
    for (index_t c = 0; c < s.clusters; ++c) {
      float score = 0;
      for (index_t d = 0; d < s.dim; ++d) score += x.data[i * x.stride + d] * s.centroid[c * s.dim + d];
      if (c == 0 || score > best) best = score, nearest[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(c);
    }
  }
  for (index_t e = 0; e < s.clusters * s.dim; ++e) s.sum[e] *= keep;
  for (index_t c = 0; c < s.clusters; ++c) s.count[c] *= keep;
  for (index_t i = 0; i < n; ++i) {
    const index_t c = nearest[static_cast<std::size_t>(i)];
    s.count[c] += move;
    for (index_t d = 0; d < s.dim; ++d) s.sum[c * s.dim + d] += move * x.data[i * x.stride + d];
  }
  float total = 0;
  for (index_t c = 0; c < s.clusters; ++c) total += s.count[c];
  if (!(total > 0)) return;
  for (index_t c = 0; c < s.clusters; ++c) {
    const float smoothed = (s.count[c] + 1e-5f) / (total + static_cast<float>(s.clusters) * 1e-5f) * total;
    for (index_t d = 0; d < s.dim; ++d) s.centroid[c * s.dim + d] = s.sum[c * s.dim + d] / smoothed;
  }
}

void layer_norm_gradient(index_t m, index_t n, Rows from, Into gradient) {
  const double columns = static_cast<double>(n);
  for (index_t i = 0; i < m; ++i) {
    const float* x = from.data + i * from.stride;
    float* g = gradient.data + i * gradient.stride;
    double mean = 0, variance = 0, sum = 0, along = 0;
    for (index_t j = 0; j < n; ++j) mean += static_cast<double>(x[j]) / columns, sum += static_cast<double>(g[j]) / columns;
    for (index_t j = 0; j < n; ++j) {
      const double centred = static_cast<double>(x[j]) - mean;
      variance += centred * centred / columns;
      along += centred * static_cast<double>(g[j]) / columns;
    }
    const double inverse = 1 / std::sqrt(variance + 1e-6);
    along *= inverse * inverse;
    for (index_t j = 0; j < n; ++j)
      g[j] = static_cast<float>(inverse * (static_cast<double>(g[j]) - sum - along * (static_cast<double>(x[j]) - mean)));
  }
}

}  // namespace attn::kernels
