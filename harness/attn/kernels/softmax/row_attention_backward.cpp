#include "attn/kernels/softmax/row_attention_backward.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/machine/flush_denormals.hpp"

namespace attn::kernels {

namespace {

// At a time: the arrays of a block fill 0.3 MB at head_dim 64 and stay in L2.
constexpr index_t block_queries = 64, block_keys = 128;

// No weight where the rule hides a key.
void hide(const SightRule& rule, index_t first_query, index_t queries, index_t first_key, index_t keys, float* weights) {
  const std::int32_t* own = rule.query + first_query;
  for (index_t j = 0; j < keys; ++j) {
    float* row = weights + j * block_queries;
    const std::int32_t key = rule.key[first_key + j];
    for (index_t i = 0; i < queries; ++i) {
      const bool within = key - own[i] >= rule.from && key - own[i] <= rule.to;
      row[i] = within == rule.outside ? 0.0f : row[i];
    }
  }
}

void gather(const ListedRows& rows, index_t first, index_t count, index_t width, float* to) {
  for (index_t i = 0; i < count; ++i) std::copy_n(rows.row(first + i), width, to + i * width);
}

void scatter_add(const float* from, index_t first, index_t count, index_t width, float factor, const ListedOutput& to) {
  for (index_t i = 0; i < count; ++i) add(1, width, {from + i * width, width}, {to.row(first + i), width}, factor);
}

}  // namespace

RowAttentionBackward::RowAttentionBackward(index_t head_dim, index_t value_dim, double scale, WorkspacePlan& plan)
    : d_(head_dim), dv_(value_dim), scale_(static_cast<float>(scale)) {
  if (!plan.training()) return;
  scratch_ = plan.per_worker<float>(block_queries * (3 * d_ + 2 * dv_ + 2) + block_keys * (d_ + dv_ + std::max(d_, dv_)) +
                                    2 * block_keys * block_queries);
}

// Weights stand as [key][query], so that those of a key are a row and the queries' constants stand along it.
void RowAttentionBackward::operator()(const RowGroup& group, const RowGroupGradients& gradients, const Workspace& workspace,
                                      int worker) const {
  const DenormalsAreZero fast;
  float* free = workspace.of(worker, scratch_).data();
  const auto take = [&free](index_t floats) { return std::exchange(free, free + floats); };
  float *q = take(block_queries * d_), *q_turned = take(block_queries * d_), *d_q = take(block_queries * d_);
  float *d_out = take(block_queries * dv_), *d_out_turned = take(block_queries * dv_);
  float *lse = take(block_queries), *delta = take(block_queries);
  float *k = take(block_keys * d_), *v = take(block_keys * dv_), *products = take(block_keys * std::max(d_, dv_));
  float *weights = take(block_keys * block_queries), *d_scores = take(block_keys * block_queries);
  const Into p{weights, block_queries}, ds{d_scores, block_queries};

  for (index_t first = 0; first < group.count; first += block_queries) {
    const index_t queries = std::min(block_queries, group.count - first);
    gather(group.q, first, queries, d_, q);
    gather(gradients.d_out, first, queries, dv_, d_out);
    for (index_t i = 0; i < queries; ++i) {
      row_dots(1, dv_, {d_out + i * dv_, dv_}, gradients.out.row(first + i), delta + i);
      const float own = *group.lse.row(first + i);
      lse[i] = std::isfinite(own) ? own : 1e30f;  // no weights
      for (index_t x = 0; x < d_; ++x) q[i * d_ + x] *= scale_;
    }
    transpose(queries, d_, {q, d_}, {q_turned, block_queries});
    transpose(queries, dv_, {d_out, dv_}, {d_out_turned, block_queries});
    std::fill_n(d_q, queries * d_, 0.0f);
    for (std::size_t list = 0; list < group.keys.size(); ++list) {
      const RowKeys& keys = group.keys[list];
      for (index_t key = 0; key < keys.count; key += block_keys) {
        const index_t count = std::min(block_keys, keys.count - key);
        gather(keys.k, key, count, d_, k);
        gather(keys.v, key, count, dv_, v);
        gemm(count, queries, d_, {k, d_}, {q_turned, block_queries}, p);
        exp_minus(count, queries, p, lse, p);
        for (const SightRule& rule : keys.rules) hide(rule, first, queries, key, count, weights);
        gemm(count, queries, dv_, {v, dv_}, {d_out_turned, block_queries}, ds);
        for (index_t j = 0; j < count; ++j) {
          for (index_t i = 0; i < queries; ++i)
            d_scores[j * block_queries + i] = weights[j * block_queries + i] * (d_scores[j * block_queries + i] - delta[i]);
        }
        gemm(count, dv_, queries, {weights, block_queries}, {d_out, dv_}, {products, dv_});
        scatter_add(products, key, count, dv_, 1, gradients.keys[list].d_v);
        gemm(count, d_, queries, {d_scores, block_queries}, {q, d_}, {products, d_});
        scatter_add(products, key, count, d_, 1, gradients.keys[list].d_k);
        gemm(queries, d_, count, {d_scores, 1, block_queries}, {k, d_}, {d_q, d_}, {.add = true});
      }
    }
    scatter_add(d_q, first, queries, d_, scale_, gradients.d_q);
  }
}

}  // namespace attn::kernels
