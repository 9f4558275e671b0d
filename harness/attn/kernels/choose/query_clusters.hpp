// Queries in clusters by k-means over their sign bits (Vyas et al. 2020, arXiv:2007.04825, section 3.2.1). As in grouping.hpp the
// same floats give the same table.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/rng.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/choose/grouping.hpp"

namespace attn::kernels {

// Bit b of code i is x_i.plane_b > threshold_b. planes [dim + 1, bits], the last row the thresholds; bits <= 64.
// scratch: sign_scratch_floats.
inline constexpr index_t sign_block = 128;
inline constexpr index_t sign_scratch_floats = (sign_block + 1) * 64;
void sign_codes(index_t n, index_t dim, Rows x, index_t bits, const float* planes, float* scratch, std::uint64_t* code);

// Lloyd's k-means in Hamming space: (iterations - 1) times assign and update, then assign. The first centroids are the codes of
// rows starts[0][c]; a centroid takes the bits that more than half of its members have, or, left alone in update t, the code of
// row starts[t][c]. starts [iterations, clusters], whole numbers.
// scratch: clusters * cluster_scratch.
inline constexpr index_t cluster_scratch = 97;
void hamming_clusters(std::span<const std::uint64_t> code, index_t clusters, index_t iterations, const float* starts,
                      std::span<std::uint64_t> centroid, std::span<std::int32_t> scratch, std::span<std::int32_t> group);

// Fills `starts`: distinct rows below n in the first iteration, any in the others.
void draw_starts(std::span<float> starts, index_t clusters, index_t n, const Rng& rng);

struct ClusterShape {
  index_t clusters, bits, iterations;
};

// What a head's queries fall into. `order` lists rows by cluster; cluster c is order[begin[c]] .. order[begin[c + 1] - 1]; its mean
// is row c of `mean`, zeros if it is empty.
struct ClusterTable {
  std::span<const std::int32_t> group, order, begin;
  Rows mean;
};

class QueryClusters {
 public:
  QueryClusters(const Problem&, const ClusterShape&, WorkspacePlan&);

  void run(View<const float, 4> q, View<const float, 2> planes, View<const float, 2> starts, const Workspace&) const;

  ClusterTable table(const Workspace&, index_t batch, index_t head) const;
  View<const float, 4> means(const Workspace&) const;  // [B,H,clusters,D]

 private:
  index_t batch_, heads_, n_, dim_;
  ClusterShape shape_;
  Booking<std::uint64_t> code_, centroid_;
  Booking<std::int32_t> group_, order_, begin_, clustering_;
  Booking<float> mean_, scratch_;
};

// For each probe the `take` <= n rows of x with the largest product with it, in ascending order.
class TopRows {
 public:
  enum class Of { rows, normalised_rows };  // by layer_norm, for the products only

  TopRows(index_t n, index_t probes, index_t dim, index_t take, Of of, WorkspacePlan&);

  // rows [probes, take].
  void operator()(Rows x, Rows probes, const Workspace&, int worker, std::int32_t* rows) const;

 private:
  class Search;
  struct Pool {   // of a probe
    float least;  // a score must exceed it
    std::int32_t size;
  };
  index_t n_, probes_, dim_, take_, fill_, capacity_;
  Of of_;
  Booking<float> normal_, block_, scores_, pool_scores_;
  Booking<std::int32_t> pool_rows_, scratch_;
  Booking<Pool> pools_;
};

// The same tables for a definition, which has no workspace and one head at a time.
struct OwnedClusterTable {
  std::vector<std::int32_t> group, order, begin;
  std::vector<float> mean;
};
OwnedClusterTable cluster_rows(index_t n, index_t dim, const float* x, const ClusterShape&, const float* planes,
                               const float* starts);
std::vector<std::int32_t> top_rows(index_t n, index_t dim, const float* x, index_t probes, const float* probe, index_t take,
                                   TopRows::Of of = TopRows::Of::rows);

}  // namespace attn::kernels
