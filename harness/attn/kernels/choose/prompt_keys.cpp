#include "attn/kernels/choose/prompt_keys.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "attn/core/assert.hpp"
#include "attn/kernels/choose/selection.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

PromptKeys::PromptKeys(const Problem& p, const PromptRules& rules, WorkspacePlan& plan) : p_(p), rules_(rules) {
  ATTN_ASSERT(rules.window >= 1 && rules.window <= rules.prompt && rules.pool % 2 == 1);
  floats_ = plan.per_worker<float>((p.head_dim + 3) * rules.prompt + 16);
  numbers_ = plan.per_worker<std::int32_t>(2 * rules.prompt + 80);
}

// Turns the keys, so that a query meets them as the lanes of a product. The sums lie behind them, then weights and means.
float* PromptKeys::start(Rows k, const Workspace& workspace, int worker) const {
  float* const turned = workspace.of(worker, floats_).data();
  transpose(rules_.prompt, p_.head_dim, k, {turned, rules_.prompt});
  float* const sums = turned + p_.head_dim * rules_.prompt;
  std::fill_n(sums, rules_.before(), 0.0f);
  return sums;
}

void PromptKeys::add_weights(const float* q, index_t r, const Workspace& workspace, int worker, float* sums) const {
  const index_t keys = rules_.before() + r + 1;
  const Rows turned{workspace.of(worker, floats_).data(), rules_.prompt};
  const Into weights{sums + rules_.prompt, keys};
  gemm(1, keys, p_.head_dim, {q, p_.head_dim}, turned, weights);
  softmax(1, keys, weights, static_cast<float>(p_.scale()), weights);
  add(1, rules_.before(), weights, {sums, rules_.before()});
}

void PromptKeys::take(float* sums, const Workspace& workspace, int worker, std::int32_t* to) const {
  const index_t n = rules_.before(), reach = rules_.pool / 2;
  if (rules_.kept() == 0) return;
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  float* const means = sums + 2 * rules_.prompt;
  for (index_t j = 0; j < n; ++j) {
    const float sum = std::accumulate(sums + std::max<index_t>(0, j - reach), sums + std::min(n, j + reach + 1), 0.0f);
    means[j] = sum > lowest ? sum : lowest;
  }
  std::int32_t* const order = workspace.of(worker, numbers_).data();
  std::iota(order, order + n, 0);
  keep_largest(n, rules_.kept(), rules_.kept(), means, order, order + rules_.prompt + 16);
  std::copy_n(order, rules_.kept(), to);
}

std::vector<bool> prompt_keys(const Problem& p, const PromptRules& rules, const float* q, const float* k) {
  WorkspacePlan plan(1);
  const PromptKeys choice(p, rules, plan);
  const Workspace workspace(plan);
  const index_t n = p.kv_len, d = p.head_dim, group = p.heads / p.kv_heads;
  std::vector<bool> kept(static_cast<std::size_t>(p.batch * p.kv_heads * rules.prompt));
  std::vector<std::int32_t> list(static_cast<std::size_t>(rules.kept()));
  for (index_t head = 0; head < p.batch * p.kv_heads; ++head) {
    choice.choose([&](index_t g, index_t r) { return q + ((head * group + g) * n + rules.before() + r) * d; },
                  {k + head * n * d, d}, workspace, 0, list.data());
    for (const std::int32_t j : list) kept[static_cast<std::size_t>(head * rules.prompt + j)] = true;
  }
  return kept;
}

}  // namespace attn::kernels
