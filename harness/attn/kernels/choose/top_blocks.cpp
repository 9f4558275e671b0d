#include "attn/kernels/choose/top_blocks.hpp"

#include <algorithm>
#include <limits>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/choice_time.hpp"
#include "attn/kernels/choose/selection.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

namespace {

constexpr index_t rows_together = 96;  // whose scores are made at once
constexpr index_t means_together = 8;  // blocks of keys in a task

}  // namespace

TopBlocks::TopBlocks(const Problem& p, index_t block, index_t take, WorkspacePlan& plan)
    : p_(p), block_(block), take_(take), blocks_(p.kv_len / block) {
  ATTN_ASSERT(p.causal && block >= 1 && take >= 0);
  means_ = plan.shared<float>(p.batch * p.kv_heads * p.head_dim * blocks_);
  floats_ = plan.per_worker<float>(std::max(rows_together * blocks_, means_together * p.head_dim) + take);
  chosen_ = plan.shared<std::int32_t>(p.batch * p.heads * p.q_len * take);
}

float* TopBlocks::means(const Workspace& workspace, index_t kv_head) const {
  return workspace.shared(means_).data() + kv_head * p_.head_dim * blocks_;
}

const std::int32_t* TopBlocks::chosen(const Workspace& workspace, index_t batch, index_t head) const {
  return workspace.shared(chosen_).data() + (batch * p_.heads + head) * p_.q_len * take_;
}

index_t TopBlocks::mean_tasks() const { return p_.batch * p_.kv_heads * ceil_div(blocks_, means_together); }

// [D, blocks]: the right operand of the scores.
void TopBlocks::average(const View<const float, 4>& k, const Workspace& workspace, index_t task, int worker) const {
  const index_t d = p_.head_dim, tasks = ceil_div(blocks_, means_together), head = task / tasks;
  const index_t first = task % tasks * means_together, count = std::min(means_together, blocks_ - first);
  const auto x = k[head / p_.kv_heads][head % p_.kv_heads];
  float* const own = workspace.of(worker, floats_).data();
  const float share = 1 / static_cast<float>(block_);
  std::fill_n(own, count * d, 0.0f);
  for (index_t u = 0; u < count; ++u) add_column_sums(block_, d, {x.row((first + u) * block_), x.stride(0)}, own + u * d);
  scale_rows(1, count * d, {own, count * d}, &share, {own, count * d});
  transpose(count, d, {own, d}, {means(workspace, head) + first, blocks_});
}

template <class F>
void TopBlocks::choose(Rows q, index_t count, F position, const float* means, float* scores, std::int32_t* to) const {
  const auto past = [&](index_t i) { return std::max<index_t>(0, position(i)) / block_; };
  const index_t most = past(count - 1);
  if (most > 0) gemm(count, most, p_.head_dim, {q.data, q.stride}, {means, blocks_}, {scores, blocks_});
  float* const best = scores + floats_.count - take_;
  for (index_t i = 0; i < count; ++i) take_largest(scores + i * blocks_, past(i), take_, best, to + i * take_);
}

void TopBlocks::run(const View<const float, 4>& q, const View<const float, 4>& k, const Workspace& workspace) const {
  const ChoiceTime choosing;
  if (take_ == 0) return;
  parallel_tasks(mean_tasks(), [&](index_t task, int worker) { average(k, workspace, task, worker); });
  const index_t panels = ceil_div(p_.q_len, rows_together);
  parallel_tasks(p_.batch * p_.heads * panels, [&](index_t task, int worker) {
    const index_t head = task / panels, b = head / p_.heads, h = head % p_.heads;
    const index_t first = task % panels * rows_together, count = std::min(rows_together, p_.q_len - first);
    const auto rows = q[b][h];
    choose(
        {rows.row(first), rows.stride(0)}, count, [&](index_t i) { return p_.query_position(first + i); },
        means(workspace, b * p_.kv_heads + p_.kv_head(h)), workspace.of(worker, floats_).data(),
        workspace.shared(chosen_).data() + (head * p_.q_len + first) * take_);
  });
}

std::vector<std::int32_t> top_blocks(const Problem& p, index_t block, index_t take, const float* q,
                                     std::span<const index_t> position, const float* k) {
  Problem sampled = p;
  sampled.q_len = 0;  // the rows are not the problem's
  WorkspacePlan plan(1);
  const TopBlocks top(sampled, block, take, plan);
  const Workspace workspace(plan);
  const View<const float, 4> keys(k, {p.batch, p.kv_heads, p.kv_len, p.head_dim});
  for (index_t task = 0; take > 0 && task < top.mean_tasks(); ++task) top.average(keys, workspace, task, 0);
  const index_t rows = std::ssize(position);
  std::vector<std::int32_t> chosen(static_cast<std::size_t>(p.batch * p.heads * rows * take));
  for (index_t row = 0; row < p.batch * p.heads * rows && take > 0; ++row) {
    const index_t head = row / rows, kv_head = head / p.heads * p.kv_heads + p.kv_head(head % p.heads);
    top.choose(
        {q + row * p.head_dim, p.head_dim}, 1, [&](index_t) { return position[static_cast<std::size_t>(row % rows)]; },
        top.means(workspace, kv_head), workspace.of(0, top.floats_).data(), chosen.data() + row * take);
  }
  return chosen;
}

}  // namespace attn::kernels
