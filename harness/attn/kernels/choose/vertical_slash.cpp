#include "attn/kernels/choose/vertical_slash.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/choice_time.hpp"
#include "attn/kernels/choose/selection.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

namespace {

// The `take` largest of n sums, of which the `always` first are some, ascending.
void keep(index_t n, index_t take, index_t always, float* sums, std::int32_t* order, std::int32_t* spare) {
  if (take == 0) return;
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  for (index_t j = 0; j < n; ++j)
    sums[j] = j < always ? std::numeric_limits<float>::infinity() : sums[j] > lowest ? sums[j] : lowest;
  std::iota(order, order + n, 0);
  keep_largest(n, take, take, sums, order, spare);
}

}  // namespace

struct VerticalSlash::Scratch {
  float* turned;            // [D, N]
  float* weights;           // [last, N]
  float *columns, *nearby;  // [N + 16], [blocks + 16]
  std::int32_t *column, *distance, *spare;
};

VerticalSlash::VerticalSlash(const Problem& p, const SlashRules& rules, WorkspacePlan& plan)
    : p_(p),
      rules_(rules),
      count_(ceil_div(p.kv_len, rules.block)),
      vertical_(std::min(p.kv_len, std::max(rules.vertical, rules.first))),
      slash_(std::min(count_, std::max(rules.slash, rules.local))) {
  ATTN_ASSERT(p.causal && p.self_attention() && rules.local >= 1);
  rules_.last = std::min(rules.last, p.q_len);
  floats_ = plan.per_worker<float>((p.head_dim + rules_.last + 1) * p.kv_len + count_ + 32);
  numbers_ = plan.per_worker<std::int32_t>(2 * p.kv_len + count_ + 96);
  lists_ = plan.shared<std::int32_t>(p.batch * p.heads * count_ * (2 + 2 * slash_ + vertical_));
}

VerticalSlash::Scratch VerticalSlash::scratch(const Workspace& workspace, int worker) const {
  float* at = workspace.of(worker, floats_).data();
  const auto take = [&](index_t floats) { return std::exchange(at, at + floats); };
  Scratch s{};
  s.turned = take(p_.head_dim * p_.kv_len);
  s.weights = take(rules_.last * p_.kv_len);
  s.columns = take(p_.kv_len + 16);
  s.nearby = at;
  s.column = workspace.of(worker, numbers_).data();
  s.distance = s.column + p_.kv_len + 16;
  s.spare = s.distance + count_ + 16;
  return s;
}

std::int32_t* VerticalSlash::list(const Workspace& workspace, index_t head, index_t u) const {
  return workspace.shared(lists_).data() + (head * count_ + u) * (2 + 2 * slash_ + vertical_);
}

void VerticalSlash::choose(const float* q, index_t q_stride, const float* k, index_t k_stride, const Scratch& s) const {
  const index_t n = p_.kv_len, d = p_.head_dim, first = n - rules_.last;
  transpose(n, d, {k, k_stride}, {s.turned, n});
  gemm(rules_.last, n, d, {q + first * q_stride, q_stride}, {s.turned, n}, {s.weights, n});
  std::fill_n(s.columns, n, 0.0f);
  std::fill_n(s.nearby, count_, 0.0f);
  for (index_t r = 0; r < rules_.last; ++r) {
    float* const row = s.weights + r * n;
    const index_t i = first + r;
    softmax(1, i + 1, {row, n}, static_cast<float>(p_.scale()), {row, n});
    add(1, i + 1, {row, n}, {s.columns, n});
    for (index_t distance = 0; distance * rules_.block <= i; ++distance) {
      const index_t end = i + 1 - distance * rules_.block;
      s.nearby[distance] = std::accumulate(row + std::max<index_t>(0, end - rules_.block), row + end, s.nearby[distance]);
    }
  }
  keep(n, vertical_, rules_.first, s.columns, s.column, s.spare);
  keep(count_, slash_, rules_.local, s.nearby, s.distance, s.spare);
}

void VerticalSlash::write_lists(const Workspace& workspace, index_t head, const Scratch& s) const {
  for (index_t u = 0; u < count_; ++u) {
    std::int32_t* const to = list(workspace, head, u);
    std::int32_t *const blocks = to + 2, *const keys = blocks + 2 * slash_;
    std::int32_t *block = blocks, *key = keys;
    // The farthest first: ascending, and a block that two distances reach once.
    for (index_t at = slash_ - 1; at >= 0; --at) {
      for (index_t w = u - s.distance[at] - 1; w <= u - s.distance[at]; ++w) {
        if (w >= 0 && (block == blocks || block[-1] < w)) *block++ = static_cast<std::int32_t>(w);
      }
    }
    const std::int32_t* next = blocks;
    for (index_t at = 0; at < vertical_ && s.column[at] / rules_.block <= u; ++at) {
      const auto own = static_cast<std::int32_t>(s.column[at] / rules_.block);
      while (next < block && *next < own) ++next;
      if (next == block || *next != own) *key++ = s.column[at];
    }
    to[0] = static_cast<std::int32_t>(block - blocks);
    to[1] = static_cast<std::int32_t>(key - keys);
  }
}

void VerticalSlash::run(const View<const float, 4>& q, const View<const float, 4>& k, const Workspace& workspace) const {
  const ChoiceTime choosing;
  parallel_tasks(p_.batch * p_.heads, [&](index_t head, int worker) {
    const Scratch s = scratch(workspace, worker);
    const auto queries = q[head / p_.heads][head % p_.heads], keys = k[head / p_.heads][p_.kv_head(head % p_.heads)];
    choose(queries.row(0), queries.stride(0), keys.row(0), keys.stride(0), s);
    write_lists(workspace, head, s);
  });
}

std::span<const std::int32_t> VerticalSlash::blocks(const Workspace& workspace, index_t batch, index_t head, index_t u) const {
  const std::int32_t* const own = list(workspace, batch * p_.heads + head, u);
  return {own + 2, static_cast<std::size_t>(own[0])};
}
std::span<const std::int32_t> VerticalSlash::keys(const Workspace& workspace, index_t batch, index_t head, index_t u) const {
  const std::int32_t* const own = list(workspace, batch * p_.heads + head, u);
  return {own + 2 + 2 * slash_, static_cast<std::size_t>(own[1])};
}

SlashTable::SlashTable(const Problem& p, const SlashRules& rules, const float* q, const float* k)
    : block(rules.block),
      keys(p.kv_len),
      blocks(ceil_div(p.kv_len, rules.block)),
      column(static_cast<std::size_t>(p.batch * p.heads * keys)),
      near(static_cast<std::size_t>(p.batch * p.heads * blocks)) {
  WorkspacePlan plan(1);
  const VerticalSlash choice(p, rules, plan);
  const Workspace workspace(plan);
  const VerticalSlash::Scratch s = choice.scratch(workspace, 0);
  for (index_t head = 0; head < p.batch * p.heads; ++head) {
    const index_t kv_head = head / p.heads * p.kv_heads + p.kv_head(head % p.heads), d = p.head_dim;
    choice.choose(q + head * keys * d, d, k + kv_head * keys * d, d, s);
    for (index_t i = 0; i < choice.vertical_; ++i) column[static_cast<std::size_t>(head * keys + s.column[i])] = true;
    for (index_t i = 0; i < choice.slash_; ++i) near[static_cast<std::size_t>(head * blocks + s.distance[i])] = true;
  }
}

}  // namespace attn::kernels
