#include "attn/kernels/query_clusters.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "attn/core/assert.hpp"
#include "attn/exec/arena.hpp"
#include "attn/kernels/rows.hpp"
#include "attn/kernels/selection.hpp"

namespace attn::kernels {

void draw_starts(std::span<float> starts, index_t clusters, index_t n, const Rng& rng) {
  ATTN_ASSERT(clusters <= n);
  std::vector<index_t> pool(static_cast<std::size_t>(n));
  std::iota(pool.begin(), pool.end(), index_t{0});
  for (index_t s = 0; s < static_cast<index_t>(starts.size()); ++s) {
    index_t start = rng.below(s, s < clusters ? n - s : n);
    if (s < clusters) {  // Fisher-Yates, as far as needed
      std::swap(pool[static_cast<std::size_t>(s)], pool[static_cast<std::size_t>(s + start)]);
      start = pool[static_cast<std::size_t>(s)];
    }
    starts[static_cast<std::size_t>(s)] = static_cast<float>(start);
  }
}

QueryClusters::QueryClusters(const Problem& p, const ClusterShape& shape, WorkspacePlan& plan)
    : batch_(p.batch),
      heads_(p.heads),
      n_(p.q_len),
      dim_(p.head_dim),
      shape_(shape),
      code_(plan.shared<std::uint64_t>(p.batch * p.heads * p.q_len)),
      centroid_(plan.per_worker<std::uint64_t>(shape.clusters)),
      group_(plan.shared<std::int32_t>(p.batch * p.heads * p.q_len)),
      order_(plan.shared<std::int32_t>(p.batch * p.heads * p.q_len)),
      begin_(plan.shared<std::int32_t>(p.batch * p.heads * (shape.clusters + 1))),
      clustering_(plan.per_worker<std::int32_t>(shape.clusters * cluster_scratch)),
      mean_(plan.shared<float>(p.batch * p.heads * shape.clusters * p.head_dim)),
      scratch_(plan.per_worker<float>(sign_scratch_floats)) {
  ATTN_ASSERT(shape.clusters >= 1 && shape.clusters <= p.q_len && shape.bits >= 1 && shape.bits <= 64 && shape.iterations >= 1);
}

namespace {

template <class E>
std::span<E> part(std::span<E> all, index_t at, index_t count) {
  return all.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count));
}

}  // namespace

void QueryClusters::run(View<const float, 4> q, View<const float, 2> planes, View<const float, 2> starts,
                        const Workspace& workspace) const {
  const index_t blocks = (n_ + sign_block - 1) / sign_block;
  const auto code = workspace.shared(code_);
  parallel_tasks(batch_ * heads_ * blocks, [&](index_t task, int worker) {
    const index_t head = task / blocks, first = task % blocks * sign_block;
    const auto x = q[head / heads_][head % heads_];
    sign_codes(std::min(sign_block, n_ - first), dim_, {x.row(first), x.stride(0)}, shape_.bits, planes.row(0),
               workspace.of(worker, scratch_).data(), code.data() + head * n_ + first);
  });
  parallel_tasks(batch_ * heads_, [&](index_t head, int worker) {
    const auto group = part(workspace.shared(group_), head * n_, n_), order = part(workspace.shared(order_), head * n_, n_);
    const auto begin = part(workspace.shared(begin_), head * (shape_.clusters + 1), shape_.clusters + 1);
    hamming_clusters(part(code, head * n_, n_), shape_.clusters, shape_.iterations, starts.row(0), workspace.of(worker, centroid_),
                     workspace.of(worker, clustering_), group);
    sort_by_group(group, order, begin);
    const auto x = q[head / heads_][head % heads_];
    means_of_groups(order, begin, dim_, {x.row(0), x.stride(0)},
                    {workspace.shared(mean_).data() + head * shape_.clusters * dim_, dim_});
  });
}

ClusterTable QueryClusters::table(const Workspace& workspace, index_t batch, index_t head) const {
  const index_t at = batch * heads_ + head;
  return {part(workspace.shared(group_), at * n_, n_),
          part(workspace.shared(order_), at * n_, n_),
          part(workspace.shared(begin_), at * (shape_.clusters + 1), shape_.clusters + 1),
          {workspace.shared(mean_).data() + at * shape_.clusters * dim_, dim_}};
}

View<const float, 4> QueryClusters::means(const Workspace& workspace) const {
  return View<const float, 4>(workspace.shared(mean_).data(), {batch_, heads_, shape_.clusters, dim_});
}

OwnedClusterTable cluster_rows(index_t n, index_t dim, const float* x, const ClusterShape& shape, const float* planes,
                               const float* starts) {
  const auto size = static_cast<std::size_t>(n), clusters = static_cast<std::size_t>(shape.clusters);
  OwnedClusterTable table{std::vector<std::int32_t>(size), std::vector<std::int32_t>(size), std::vector<std::int32_t>(clusters + 1),
                          std::vector<float>(clusters * static_cast<std::size_t>(dim))};
  std::vector<std::uint64_t> code(size), centroid(clusters);
  std::vector<std::int32_t> clustering(clusters * cluster_scratch);
  std::vector<float> scratch(sign_scratch_floats);
  sign_codes(n, dim, {x, dim}, shape.bits, planes, scratch.data(), code.data());
  hamming_clusters(code, shape.clusters, shape.iterations, starts, centroid, clustering, table.group);
  sort_by_group(table.group, table.order, table.begin);
  means_of_groups(table.order, table.begin, dim, {x, dim}, {table.mean.data(), dim});
  return table;
}

namespace {

constexpr index_t key_block = 256;
constexpr index_t turned_stride = key_block + 16;  // rows 1 KB apart would meet in a quarter of L1's sets
constexpr index_t probe_block = 24;  // scores of both are looked through while in L1; a multiple of the product's tiles

}  // namespace

// A pool takes all rows until it has 5 `take`, and is then thinned whenever it exceeds 4 `take`: scores above its least must be
// found one by one, so the sooner that is high the better. Two or three times on N = 8192.
TopRows::TopRows(index_t n, index_t probes, index_t dim, index_t take, Of of, WorkspacePlan& plan)
    : n_(n),
      probes_(probes),
      dim_(dim),
      take_(take),
      fill_(std::min(n, 5 * take)),
      capacity_(fill_ + key_block + 16),
      of_(of),
      normal_(plan.per_worker<float>(of == Of::normalised_rows ? dim * key_block : 0)),
      block_(plan.per_worker<float>(dim * turned_stride)),
      scores_(plan.per_worker<float>(probe_block * key_block)),
      pool_scores_(plan.per_worker<float>(probes * capacity_)),
      pool_rows_(plan.per_worker<std::int32_t>(probes * capacity_)),
      scratch_(plan.per_worker<std::int32_t>(capacity_ + 64)),
      pools_(plan.per_worker<Pool>(probes)) {
  ATTN_ASSERT(take >= 1 && take <= n);
}

void TopRows::operator()(Rows x, Rows probes, const Workspace& workspace, int worker, std::int32_t* rows) const {
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  float* turned = workspace.of(worker, block_).data();
  float* scores = workspace.of(worker, scores_).data();
  float* pool_scores = workspace.of(worker, pool_scores_).data();
  std::int32_t* pool_rows = workspace.of(worker, pool_rows_).data();
  std::int32_t* scratch = workspace.of(worker, scratch_).data();
  const std::span<Pool> pools = workspace.of(worker, pools_);
  std::fill(pools.begin(), pools.end(), Pool{lowest, 0});
  const auto thin = [&](index_t c, index_t most) {
    Pool& pool = pools[static_cast<std::size_t>(c)];
    if (pool.size <= most) return;
    const Kept kept = keep_largest(pool.size, take_, most, pool_scores + c * capacity_, pool_rows + c * capacity_, scratch);
    pool = {kept.least, static_cast<std::int32_t>(kept.count)};
  };
  const index_t about = take_ + take_ / 4;  // is enough on the way
  for (index_t first = 0; first < n_; first += key_block) {
    const index_t count = std::min(key_block, n_ - first);
    Rows block{x.data + first * x.stride, x.stride};
    if (of_ == Of::normalised_rows) {
      const Into normal{workspace.of(worker, normal_).data(), dim_};
      layer_norm(count, dim_, block, normal);
      block = normal;
    }
    transpose(count, dim_, block, {turned, turned_stride});
    for (index_t c = 0; c < probes_; ++c) {
      if (c % probe_block == 0) {
        GemmOptions options;
        const index_t soon = first + key_block + c / probe_block * dim_;  // of the next block, a share that the product can fetch
        if (soon + dim_ <= n_) options.fetch[0] = {x.data + soon * x.stride, x.stride, dim_};
        gemm(std::min(probe_block, probes_ - c), count, dim_, {probes.data + c * probes.stride, probes.stride},
             {turned, turned_stride}, {scores, key_block}, options);
      }
      Pool& pool = pools[static_cast<std::size_t>(c)];
      const float* score = scores + c % probe_block * key_block;
      float* own_scores = pool_scores + c * capacity_;
      std::int32_t* own_rows = pool_rows + c * capacity_;
      index_t j = 0;
      if (pool.least == lowest) {
        j = std::min(count, fill_ - pool.size);
        append_all(j, score, static_cast<std::int32_t>(first), own_scores + pool.size, own_rows + pool.size);
        pool.size += static_cast<std::int32_t>(j);
        if (pool.size == fill_) thin(c, about);
      }
      pool.size = static_cast<std::int32_t>(
          append_above(count - j, score + j, pool.least, static_cast<std::int32_t>(first + j), own_scores, own_rows, pool.size));
      if (pool.least != lowest && pool.size >= 4 * take_) thin(c, about);
    }
  }
  for (index_t c = 0; c < probes_; ++c) {
    thin(c, take_);  // rows were appended, and stay, in ascending order
    std::copy_n(pool_rows + c * capacity_, take_, rows + c * take_);
  }
}

std::vector<std::int32_t> top_rows(index_t n, index_t dim, const float* x, index_t probes, const float* probe, index_t take,
                                   TopRows::Of of) {
  WorkspacePlan plan(1);
  const TopRows top(n, probes, dim, take, of, plan);
  const Workspace workspace(plan);
  std::vector<std::int32_t> rows(static_cast<std::size_t>(probes * take));
  top({x, dim}, {probe, dim}, workspace, 0, rows.data());
  return rows;
}

}  // namespace attn::kernels
