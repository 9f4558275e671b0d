#include "attn/kernels/choose/query_clusters.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "attn/core/assert.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/choice_time.hpp"
#include "attn/kernels/choose/selection.hpp"
#include "attn/kernels/dense/rows.hpp"

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
  const ChoiceTime choosing;
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

// A pool takes the rows whose scores exceed its least: found one by one, so the sooner that is high the better. It begins as what
// some rows far apart let expect, too low by far rather than too high. Where there are few rows, or a second time for the pools
// that stayed too small, a pool takes all rows until it has 5 `take`. It is thinned whenever it exceeds 4 `take`.
TopRows::TopRows(index_t n, index_t probes, index_t dim, index_t take, Of of, WorkspacePlan& plan)
    : n_(n),
      probes_(probes),
      dim_(dim),
      take_(take),
      fill_(std::min(n, 5 * take)),
      capacity_(std::max(fill_, key_block) + key_block + 16),
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

// A head's work.
class TopRows::Search {
 public:
  Search(const TopRows& plan, Rows x, Rows probes, const Workspace& workspace, int worker)
      : plan_(plan),
        x_(x),
        probes_(probes),
        normal_(workspace.of(worker, plan.normal_).data()),
        turned_(workspace.of(worker, plan.block_).data()),
        scores_(workspace.of(worker, plan.scores_).data()),
        pool_scores_(workspace.of(worker, plan.pool_scores_).data()),
        pool_rows_(workspace.of(worker, plan.pool_rows_).data()),
        scratch_(workspace.of(worker, plan.scratch_).data()),
        pools_(workspace.of(worker, plan.pools_)) {}

  void run(std::int32_t* rows) {
    std::fill(pools_.begin(), pools_.end(), Pool{lowest, 0});
    const bool guessed = plan_.n_ >= 8 * key_block && guess();
    collect();
    if (guessed && std::any_of(pools_.begin(), pools_.end(), [&](const Pool& pool) { return pool.size < plan_.take_; })) {
      for (Pool& pool : pools_) pool = pool.size < plan_.take_ ? Pool{lowest, 0} : Pool{-lowest, pool.size};
      collect();
    }
    for (index_t c = 0; c < plan_.probes_; ++c) {
      thin(c, plan_.take_, plan_.take_);  // rows were appended, and stay, in ascending order
      std::copy_n(rows_of(c), plan_.take_, rows + c * plan_.take_);
    }
  }

 private:
  static constexpr float lowest = -std::numeric_limits<float>::infinity();

  float* scores_of(index_t c) const { return pool_scores_ + c * plan_.capacity_; }
  std::int32_t* rows_of(index_t c) const { return pool_rows_ + c * plan_.capacity_; }

  void thin(index_t c, index_t take, index_t most) {
    Pool& pool = pools_[static_cast<std::size_t>(c)];
    if (pool.size <= most) return;
    const Kept kept = keep_largest(pool.size, take, most, scores_of(c), rows_of(c), scratch_);
    pool = {kept.least, static_cast<std::int32_t>(kept.count)};
  }

  // Calls f(probe, its scores of the block's rows). `soon`: rows that the products may fetch meanwhile.
  template <class F>
  void score(Rows block, index_t count, index_t soon, F f) {
    const index_t dim = plan_.dim_;
    if (plan_.of_ == Of::normalised_rows) {
      layer_norm(count, dim, block, {normal_, dim});
      block = {normal_, dim};
    }
    transpose(count, dim, block, {turned_, turned_stride});
    for (index_t c = 0; c < plan_.probes_; ++c) {
      if (c % probe_block == 0) {
        GemmOptions options;
        const index_t share = soon + c / probe_block * dim;
        if (share + dim <= plan_.n_) options.fetch[0] = {x_.data + share * x_.stride, x_.stride, dim};
        gemm(std::min(probe_block, plan_.probes_ - c), count, dim, {probes_.data + c * probes_.stride, probes_.stride},
             {turned_, turned_stride}, {scores_, key_block}, options);
      }
      f(c, scores_ + c % probe_block * key_block);
    }
  }

  // About `expected` of key_block rows belong to the best `take` of all. Four deviations more and two come close to never too few.
  bool guess() {
    const index_t step = plan_.n_ / key_block;
    const double expected = static_cast<double>(plan_.take_) / static_cast<double>(step);
    const auto above = static_cast<index_t>(expected + 4 * std::sqrt(expected)) + 2;
    if (2 * above > key_block) return false;
    score({x_.data, x_.stride * step}, key_block, 0, [&](index_t c, const float* score) {
      append_all(key_block, score, 0, scores_of(c), rows_of(c));
      pools_[static_cast<std::size_t>(c)].size = key_block;
      thin(c, above, above + above / 4);
      pools_[static_cast<std::size_t>(c)].size = 0;
    });
    return true;
  }

  void collect() {
    const index_t about = plan_.take_ + plan_.take_ / 4;  // is enough on the way
    for (index_t first = 0; first < plan_.n_; first += key_block) {
      const index_t count = std::min(key_block, plan_.n_ - first);
      score({x_.data + first * x_.stride, x_.stride}, count, first + key_block, [&](index_t c, const float* score) {
        Pool& pool = pools_[static_cast<std::size_t>(c)];
        index_t j = 0;
        if (pool.least == lowest) {
          j = std::min(count, plan_.fill_ - pool.size);
          append_all(j, score, static_cast<std::int32_t>(first), scores_of(c) + pool.size, rows_of(c) + pool.size);
          pool.size += static_cast<std::int32_t>(j);
          if (pool.size == plan_.fill_) thin(c, plan_.take_, about);
        }
        pool.size = static_cast<std::int32_t>(append_above(count - j, score + j, pool.least, static_cast<std::int32_t>(first + j),
                                                           scores_of(c), rows_of(c), pool.size));
        if (pool.least != lowest && pool.size >= 4 * plan_.take_) thin(c, plan_.take_, about);
      });
    }
  }

  const TopRows& plan_;
  const Rows x_, probes_;
  float *normal_, *turned_, *scores_, *pool_scores_;
  std::int32_t *pool_rows_, *scratch_;
  const std::span<Pool> pools_;
};

void TopRows::operator()(Rows x, Rows probes, const Workspace& workspace, int worker, std::int32_t* rows) const {
  Search(*this, x, probes, workspace, worker).run(rows);
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
