// What variants that cluster their queries by hashes declare.
#pragma once

#include <span>

#include "attn/kernels/choose/query_clusters.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// Random tables of kernels::QueryClusters, the same for all heads. Planes stand over their thresholds.
inline Parameters query_cluster_tables(const Problem& p, const kernels::ClusterShape& shape) {
  const index_t clusters = shape.clusters, n = p.q_len;
  const auto draw = [=](std::span<float> starts, const Shape&, const Rng& rng) { kernels::draw_starts(starts, clusters, n, rng); };
  return {{.name = "planes",
           .shape = {p.head_dim + 1, shape.bits},
           .init = init::normal(1),
           .trainable = false,
           .axes = "head_dim + 1, bits",
           .doc = "bit b of a query is q.planes[:head_dim, b] > planes[head_dim, b], in every head"},
          {.name = "starts",
           .shape = {shape.iterations, clusters},
           .init = draw,
           .trainable = false,
           .check = whole_numbers(0, n - 1),
           .axes = "iterations, clusters",
           .doc = "starts[0, c]: the query whose bits centroid c starts from; starts[t, c]: the one it starts again from, left "
                  "alone by step t"}};
}

}  // namespace attn
