#include "attn/kernels/choose/compressed_choice.hpp"

#include <algorithm>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/choice_time.hpp"
#include "attn/kernels/choose/selection.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

namespace {

constexpr index_t rows_together = 48;   // whose weights are made at once: 192 KB at 1024 compressed keys
constexpr index_t means_together = 32;  // of a task

}  // namespace

CompressedChoice::CompressedChoice(const Problem& p, const CompressedRules& rules, WorkspacePlan& plan)
    : p_(p), rules_(rules), count_(rules.count(p.kv_len)), blocks_(ceil_div(p.kv_len, rules.select)) {
  ATTN_ASSERT(p.causal && rules.block % rules.stride == 0 && rules.select % rules.stride == 0);
  keys_ = plan.shared<float>(p.batch * p.kv_heads * p.head_dim * count_);
  floats_ = plan.per_worker<float>(2 * rows_together * count_ + blocks_ + rules.places());
  chosen_ = plan.shared<std::int32_t>(p.batch * p.kv_heads * p.q_len * rules.places());
}

float* CompressedChoice::turned(const Workspace& workspace, index_t kv_head) const {
  return workspace.shared(keys_).data() + kv_head * p_.head_dim * count_;
}

const std::int32_t* CompressedChoice::chosen(const Workspace& workspace, index_t batch, index_t kv_head) const {
  return workspace.shared(chosen_).data() + (batch * p_.kv_heads + kv_head) * p_.q_len * rules_.places();
}

void CompressedChoice::mean(Rows x, index_t width, index_t i, float* to) const {
  const float share = 1 / static_cast<float>(rules_.block);
  std::fill_n(to, width, 0.0f);
  add_column_sums(rules_.block, width, {x.data + i * rules_.stride * x.stride, x.stride}, to);
  scale_rows(1, width, {to, width}, &share, {to, width});
}

void CompressedChoice::compress(const View<const float, 4>& x, const View<float, 4>& to) const {
  const index_t tasks = ceil_div(count_, means_together);
  parallel_tasks(p_.batch * p_.kv_heads * tasks, [&](index_t task, int) {
    const index_t head = task / tasks, first = task % tasks * means_together;
    const auto from = x[head / p_.kv_heads][head % p_.kv_heads];
    const auto into = to[head / p_.kv_heads][head % p_.kv_heads];
    for (index_t i = first; i < std::min(count_, first + means_together); ++i)
      mean({from.row(0), from.stride(0)}, from.extent(1), i, into.row(i));
  });
}

// Rows before the first key that is whole see none, and have no weights.
template <class F>
void CompressedChoice::weigh(Rows q, index_t rows, F position, const float* keys, float* scores, float* sums) const {
  const index_t most = rules_.visible(position(rows - 1));
  if (most <= 0) return;
  gemm(rows, most, p_.head_dim, {q.data, q.stride}, {keys, count_}, {scores, count_});
  for (index_t i = 0; i < rows; ++i) {
    const index_t seen = rules_.visible(position(i));
    if (seen <= 0) continue;
    softmax(1, seen, {scores + i * count_, count_}, static_cast<float>(p_.scale()), {scores + i * count_, count_});
    add(1, seen, {scores + i * count_, count_}, {sums + i * count_, count_});
  }
}

void CompressedChoice::choose(index_t position, const float* sums, float* scores, std::int32_t* to) const {
  const index_t own = position / rules_.select, seen = std::max<index_t>(0, rules_.visible(position)), others = own - 2;
  const index_t per_block = rules_.select / rules_.stride, per_key = rules_.block / rules_.stride;
  for (index_t j = 1; j <= others; ++j) {  // but the first block, the own and the one before
    const index_t block = per_block * j, first = block - per_key + 1;
    float score = 0;
    for (index_t i = std::max<index_t>(0, first); i < std::min(seen, block + per_block); ++i) {
      const index_t shared = std::min(i + per_key, block + per_block) - std::max(i, block);
      score += sums[i] * static_cast<float>(shared);
    }
    scores[j - 1] = score;
  }
  take_largest(scores, std::max<index_t>(0, others), rules_.places(), scores + blocks_, to);
  for (std::int32_t* u = to; u < to + rules_.places(); ++u) *u += *u >= 0 ? 1 : 0;
}

void CompressedChoice::run(const View<const float, 4>& q, const View<const float, 4>& keys, const Workspace& workspace) const {
  const ChoiceTime choosing;
  const index_t kv_heads = p_.batch * p_.kv_heads, group = p_.heads / p_.kv_heads, panels = ceil_div(p_.q_len, rows_together);
  parallel_tasks(count_ > 0 ? kv_heads : 0, [&](index_t head, int) {
    const auto own = keys[head / p_.kv_heads][head % p_.kv_heads];
    transpose(count_, p_.head_dim, {own.row(0), own.stride(0)}, {turned(workspace, head), count_});
  });
  parallel_tasks(kv_heads * panels, [&](index_t task, int worker) {
    const index_t head = task / panels, b = head / p_.kv_heads, kv = head % p_.kv_heads;
    const index_t first = task % panels * rows_together, rows = std::min(rows_together, p_.q_len - first);
    float* const scores = workspace.of(worker, floats_).data();
    float *const sums = scores + rows_together * count_, *const of_blocks = sums + rows_together * count_;
    std::fill_n(sums, rows * count_, 0.0f);
    const auto position = [&](index_t i) { return p_.query_position(first + i); };
    for (index_t h = kv * group; h < (kv + 1) * group; ++h) {
      const auto own = q[b][h];
      weigh({own.row(first), own.stride(0)}, rows, position, turned(workspace, head), scores, sums);
    }
    std::int32_t* const to = workspace.shared(chosen_).data() + (head * p_.q_len + first) * rules_.places();
    for (index_t i = 0; i < rows; ++i) choose(position(i), sums + i * count_, of_blocks, to + i * rules_.places());
  });
}

std::vector<std::int32_t> compressed_choice(const Problem& p, const CompressedRules& rules, const float* q,
                                            std::span<const index_t> position, const float* k) {
  const index_t rows = std::ssize(position), d = p.head_dim, group = p.heads / p.kv_heads, count = rules.count(p.kv_len);
  Problem sampled = p;
  sampled.q_len = 0;  // the rows are not the problem's
  WorkspacePlan plan(1);
  const CompressedChoice choice(sampled, rules, plan);
  const Workspace workspace(plan);
  std::vector<float> means(static_cast<std::size_t>(count * d)), sums(static_cast<std::size_t>(count));
  std::vector<std::int32_t> chosen(static_cast<std::size_t>(p.batch * p.kv_heads * rows * rules.places()));
  float* const scores = workspace.of(0, choice.floats_).data();
  for (index_t head = 0; head < p.batch * p.kv_heads; ++head) {
    for (index_t i = 0; i < count; ++i) choice.mean({k + head * p.kv_len * d, d}, d, i, means.data() + i * d);
    if (count > 0) transpose(count, d, {means.data(), d}, {choice.turned(workspace, head), count});
    for (index_t row = 0; row < rows; ++row) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      const auto at = [&](index_t) { return position[static_cast<std::size_t>(row)]; };
      for (index_t h = 0; h < group; ++h)
        choice.weigh({q + ((head * group + h) * rows + row) * d, d}, 1, at, choice.turned(workspace, head), scores, sums.data());
      choice.choose(at(0), sums.data(), scores, chosen.data() + (head * rows + row) * rules.places());
    }
  }
  return chosen;
}

}  // namespace attn::kernels
