#include "attn/kernels/choose/block_choice.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/choice_time.hpp"
#include "attn/kernels/choose/selection.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

namespace {

constexpr index_t pooled_together = 16;     // blocks of keys in a task
constexpr index_t stretches_together = 64;  // rows of scores of a task, about: 256 KB of them at 1024 stretches
constexpr float most = std::numeric_limits<float>::max();
constexpr float lowest = -std::numeric_limits<float>::infinity();

Rows rows_from(const View<const float, 4>& x, index_t batch, index_t head, index_t first) {
  return {x[batch][head].data_handle() + first * x.stride(2), x.stride(2)};
}

}  // namespace

struct BlockChoice::Scratch {
  float* queries;                // [together, D]
  float* scores;                 // [together, blocks]
  float* stretches;              // [rows of a task, stretches]
  float* sorted;                 // [blocks + 16]
  float* row;                    // [max(D, block)] twice
  std::int32_t *order, *number;  // [blocks + 64] each
};

BlockChoice::BlockChoice(const Problem& p, const BlockRules& rules, WorkspacePlan& plan)
    : p_(p), rules_(rules), count_(ceil_div(p.kv_len, rules.block)), together_(pooled_together) {
  ATTN_ASSERT(p.self_attention() && rules.block >= 1 && rules.keep >= 1 && (!p.causal || rules.local >= 1));
  const bool by_stretches = rules.score == BlockRules::Score::antidiagonal;
  ATTN_ASSERT(!by_stretches || rules.block % rules.stride == 0);
  index_t stretch_rows = 0;
  if (by_stretches) {
    const index_t in_block = rules.block / rules.stride;
    together_ = std::max<index_t>(1, stretches_together / in_block);
    stretch_rows = together_ * in_block;
  }
  const index_t d = p.head_dim, heads = p.batch * p.kv_heads;
  keys_ = plan.shared<float>(heads * d * (by_stretches ? rules.stride * strides() : count_));
  unlike_ = plan.shared<std::int32_t>(rules.score == BlockRules::Score::similar ? heads * count_ : 0);
  lists_ = plan.shared<std::int32_t>(p.batch * p.heads * count_ * (1 + most_chosen()));
  const index_t pooled = std::max(together_, pooled_together) * d;
  floats_ = plan.per_worker<float>(pooled + together_ * count_ + stretch_rows * strides() + count_ + 16 +
                                   2 * std::max(d, std::min(rules.block, p.kv_len)));
  numbers_ = plan.per_worker<std::int32_t>(2 * (count_ + 64));
}

index_t BlockChoice::strides() const { return ceil_div(p_.kv_len, rules_.stride); }
index_t BlockChoice::rows_of(index_t block) const { return std::min(rules_.block, p_.kv_len - block * rules_.block); }

index_t BlockChoice::most_chosen() const {
  if (rules_.cover > 0 || rules_.score == BlockRules::Score::similar) return count_;
  return std::min(count_, std::max(rules_.keep, std::min(rules_.first, count_) + 2 * std::min(rules_.local, count_)));
}

BlockChoice::Scratch BlockChoice::scratch(const Workspace& workspace, int worker) const {
  float* at = workspace.of(worker, floats_).data();
  const auto take = [&](index_t floats) { return std::exchange(at, at + floats); };
  const bool by_stretches = rules_.score == BlockRules::Score::antidiagonal;
  Scratch s{};
  s.queries = take(std::max(together_, pooled_together) * p_.head_dim);
  s.scores = take(together_ * count_);
  s.stretches = take(by_stretches ? together_ * (rules_.block / rules_.stride) * strides() : 0);
  s.sorted = take(count_ + 16);
  s.row = at;
  s.order = workspace.of(worker, numbers_).data();
  s.number = s.order + count_ + 64;
  return s;
}

float* BlockChoice::keys_of(const Workspace& workspace, index_t kv_head) const {
  return workspace.shared(keys_).data() + kv_head * (keys_.count / (p_.batch * p_.kv_heads));
}

void BlockChoice::run(const View<const float, 4>& q, const View<const float, 4>& k, const Workspace& workspace) const {
  const ChoiceTime choosing;
  parallel_tasks(key_tasks(), [&](index_t task, int worker) { pool_keys(k, workspace, task, worker); });
  parallel_tasks(choice_tasks(), [&](index_t task, int worker) { choose(q, workspace, task, worker); });
}

std::span<const std::int32_t> BlockChoice::blocks(const Workspace& workspace, index_t batch, index_t head, index_t u) const {
  const std::int32_t* list = workspace.shared(lists_).data() + ((batch * p_.heads + head) * count_ + u) * (1 + most_chosen());
  return {list + 1, static_cast<std::size_t>(list[0])};
}

// Row i becomes the mean of block first + i, times `factor`. `x` begins at row 0.
void BlockChoice::means(Rows x, index_t first, index_t count, double factor, Into to) const {
  const index_t d = p_.head_dim;
  for (index_t i = 0; i < count; ++i) {
    const index_t rows = rows_of(first + i);
    float* const sum = to.data + i * to.stride;
    std::fill_n(sum, d, 0.0f);
    add_column_sums(rows, d, {x.data + (first + i) * rules_.block * x.stride, x.stride}, sum);
    const auto share = static_cast<float>(factor / static_cast<double>(rows));
    scale_rows(1, d, {sum, d}, &share, {sum, d});
  }
}

// Whether the mean of the cosines between all rows of a block exceeds the limit: that is the square of their mean direction. A row of zeros
// points nowhere.
bool BlockChoice::alike(Rows x, index_t block, const Scratch& s) const {
  const index_t rows = rows_of(block), d = p_.head_dim;
  const Rows own{x.data + block * rules_.block * x.stride, x.stride};
  float *const factors = s.row, *const direction = s.row + std::max(d, std::min(rules_.block, p_.kv_len));
  row_squares(rows, d, own, factors);
  for (index_t i = 0; i < rows; ++i) factors[i] = factors[i] > 0 ? 1 / (std::sqrt(factors[i]) * static_cast<float>(rows)) : 0;
  gemm(1, d, rows, {factors, 0}, own, {direction, d});
  float cosine = 0;
  row_squares(1, d, {direction, d}, &cosine);
  return static_cast<double>(cosine) > rules_.similarity;
}

index_t BlockChoice::key_tasks() const {
  const index_t heads = p_.batch * p_.kv_heads;
  if (rules_.score == BlockRules::Score::antidiagonal) return heads * rules_.stride;
  return heads * ceil_div(count_, pooled_together);
}

// Keys as the right operand of the scores: [D, blocks] means, or [stride, D, stretches] the keys of each place in a stretch.
void BlockChoice::pool_keys(const View<const float, 4>& k, const Workspace& workspace, index_t task, int worker) const {
  const Scratch s = scratch(workspace, worker);
  const index_t d = p_.head_dim, tasks = key_tasks() / (p_.batch * p_.kv_heads), head = task / tasks;
  const Rows x = rows_from(k, head / p_.kv_heads, head % p_.kv_heads, 0);
  if (rules_.score == BlockRules::Score::antidiagonal) {
    const index_t t = task % tasks, all = strides(), rows = t < p_.kv_len ? (p_.kv_len - 1 - t) / rules_.stride + 1 : 0;
    float* const to = keys_of(workspace, head) + t * d * all;
    transpose(rows, d, {x.data + t * x.stride, rules_.stride * x.stride}, {to, all});
    for (index_t c = 0; c < d && rows < all; ++c) to[c * all + rows] = 0;
    return;
  }
  const index_t first = task % tasks * pooled_together, count = std::min(pooled_together, count_ - first);
  means(x, first, count, 1, {s.queries, d});
  transpose(count, d, {s.queries, d}, {keys_of(workspace, head) + first, count_});
  if (rules_.score != BlockRules::Score::similar) return;
  for (index_t w = first; w < first + count; ++w)
    workspace.shared(unlike_)[static_cast<std::size_t>(head * count_ + w)] = alike(x, w, s) ? 0 : 1;
}

index_t BlockChoice::choice_tasks() const { return p_.batch * p_.heads * ceil_div(count_, together_); }

void BlockChoice::choose(const View<const float, 4>& q, const Workspace& workspace, index_t task, int worker) const {
  const Scratch s = scratch(workspace, worker);
  const index_t tasks = ceil_div(count_, together_), head = task / tasks, b = head / p_.heads, h = head % p_.heads;
  const index_t first = task % tasks * together_, count = std::min(together_, count_ - first);
  const index_t kv_head = b * p_.kv_heads + p_.kv_head(h);
  const Rows x = rows_from(q, b, h, 0);
  if (rules_.score == BlockRules::Score::antidiagonal)
    score_stretches(x, keys_of(workspace, kv_head), first, count, s);
  else
    score_means(x, keys_of(workspace, kv_head), first, count, s);
  const bool similar = rules_.score == BlockRules::Score::similar;
  const std::int32_t* const unlike = similar ? workspace.shared(unlike_).data() + kv_head * count_ : nullptr;
  std::int32_t* list = workspace.shared(lists_).data() + (head * count_ + first) * (1 + most_chosen());
  for (index_t u = first; u < first + count; ++u, list += 1 + most_chosen())
    choose_row(u, s.scores + (u - first) * count_, unlike, !similar || alike(x, u, s), s, list);
}

void BlockChoice::score_means(Rows q, const float* keys, index_t first, index_t count, const Scratch& s) const {
  means(q, first, count, p_.scale(), {s.queries, p_.head_dim});
  const index_t visible = p_.causal ? first + count : count_;
  gemm(count, visible, p_.head_dim, {s.queries, p_.head_dim}, {keys, count_}, {s.scores, count_});
}

// Stretch I of queries meets stretch J of keys at I's row s-1-t and J's row t, for all t < s; rows past the end count as zeros.
void BlockChoice::score_stretches(Rows q, const float* keys, index_t first, index_t count, const Scratch& s) const {
  const index_t d = p_.head_dim, stride = rules_.stride, all = strides(), in_block = rules_.block / stride;
  const index_t begin = first * in_block, rows = std::min((first + count) * in_block, all) - begin;
  const index_t visible = p_.causal ? begin + rows : all;
  for (index_t i = 0; i < rows; ++i) std::fill_n(s.stretches + i * all, visible, 0.0f);
  for (index_t t = 0; t < stride; ++t) {
    const index_t at = begin * stride + stride - 1 - t;  // of the first stretch's row
    const index_t there = at < p_.q_len ? std::min(rows, (p_.q_len - 1 - at) / stride + 1) : 0;
    if (there == 0) continue;
    gemm(there, visible, d, {q.data + at * q.stride, stride * q.stride}, {keys + t * d * all, all}, {s.stretches, all},
         {.add = true});
  }
  const auto scale = static_cast<float>(p_.scale() / static_cast<double>(stride));
  std::fill_n(s.scores, count * count_, 0.0f);
  for (index_t i = 0; i < rows; ++i) {
    float* const row = s.stretches + i * all;
    const index_t seen = p_.causal ? begin + i + 1 : all;
    softmax(1, seen, {row, all}, scale, {row, all});
    float* const to = s.scores + i / in_block * count_;
    for (index_t w = 0; w * in_block < seen; ++w)
      to[w] = std::accumulate(row + w * in_block, row + std::min((w + 1) * in_block, seen), to[w]);
  }
}

void BlockChoice::choose_row(index_t u, float* scores, const std::int32_t* unlike, bool query_alike, const Scratch& s,
                             std::int32_t* list) const {
  const index_t visible = p_.causal ? u + 1 : count_;
  if (!query_alike) {
    list[0] = static_cast<std::int32_t>(visible);
    std::iota(list + 1, list + 1 + visible, 0);
    return;
  }
  index_t always = 0, strangers = 0;
  for (index_t w = 0; w < visible; ++w) {
    const bool stranger = unlike != nullptr && unlike[w] != 0;
    always += rules_.always(u, w) && !stranger;
    strangers += stranger;
    scores[w] = scores[w] > lowest ? std::min(scores[w], most) : lowest;  // no NaN
  }
  if (rules_.cover > 0) {
    list[0] = static_cast<std::int32_t>(cover_mass(u, visible, scores, unlike, s, list + 1));
    return;
  }
  const index_t take = std::min(visible, std::max(rules_.keep, always) + strangers);
  list[0] = static_cast<std::int32_t>(keep_best(u, visible, take, scores, unlike, s, list + 1));
}

index_t BlockChoice::keep_best(index_t u, index_t visible, index_t take, const float* scores, const std::int32_t* unlike,
                               const Scratch& s, std::int32_t* list) const {
  for (index_t w = 0; w < visible; ++w) {
    const bool first = rules_.always(u, w) || (unlike != nullptr && unlike[w] != 0);
    s.sorted[w] = first ? std::numeric_limits<float>::infinity() : scores[w];
    s.order[w] = static_cast<std::int32_t>(w);
  }
  const Kept kept = keep_largest(visible, take, take, s.sorted, s.order, s.number);
  std::copy_n(s.order, kept.count, list);
  return kept.count;
}

// Those that are always kept, then the largest, until the share is reached; of the mass of blocks that are alike.
index_t BlockChoice::cover_mass(index_t u, index_t visible, float* scores, const std::int32_t* unlike, const Scratch& s,
                                std::int32_t* list) const {
  const auto stranger = [&](index_t w) { return unlike != nullptr && unlike[w] != 0; };
  if (rules_.score != BlockRules::Score::antidiagonal) {  // whose scores are masses
    for (index_t w = 0; w < visible; ++w) scores[w] = stranger(w) ? lowest : scores[w];
    const float top = *std::max_element(scores, scores + visible);
    for (index_t w = 0; w < visible; ++w) scores[w] = top > lowest ? std::exp(scores[w] - top) : 0;
  }
  double mass = 0;
  for (index_t w = 0; w < visible; ++w) mass += static_cast<double>(std::max(scores[w], 0.0f));
  std::iota(s.order, s.order + visible, 0);
  const auto rank = [&](index_t w) { return stranger(w) ? 2 : rules_.always(u, w) ? 1 : 0; };
  std::sort(s.order, s.order + visible, [&](std::int32_t a, std::int32_t b) {
    if (rank(a) != rank(b)) return rank(a) > rank(b);
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  });
  index_t taken = 0;
  double reached = 0;
  while (taken < visible && (taken == 0 || rank(s.order[taken]) > 0 || reached < rules_.cover * mass))
    reached += static_cast<double>(std::max(scores[s.order[taken++]], 0.0f));
  std::sort(s.order, s.order + taken);
  std::copy_n(s.order, taken, list);
  return taken;
}

std::vector<bool> chosen_blocks(const Problem& p, const BlockRules& rules, const float* q, const float* k) {
  WorkspacePlan plan(1);
  const BlockChoice choice(p, rules, plan);
  const Workspace workspace(plan);
  const View<const float, 4> queries(q, {p.batch, p.heads, p.q_len, p.head_dim});
  const View<const float, 4> keys(k, {p.batch, p.kv_heads, p.kv_len, p.head_dim});
  for (index_t task = 0; task < choice.key_tasks(); ++task) choice.pool_keys(keys, workspace, task, 0);
  for (index_t task = 0; task < choice.choice_tasks(); ++task) choice.choose(queries, workspace, task, 0);
  const index_t blocks = choice.count_;
  std::vector<bool> chosen(static_cast<std::size_t>(p.batch * p.heads * blocks * blocks), false);
  for (index_t row = 0; row < p.batch * p.heads * blocks; ++row) {
    for (const std::int32_t w : choice.blocks(workspace, row / blocks / p.heads, row / blocks % p.heads, row % blocks))
      chosen[static_cast<std::size_t>(row * blocks + w)] = true;
  }
  return chosen;
}

}  // namespace attn::kernels
