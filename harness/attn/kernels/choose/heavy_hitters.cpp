#include "attn/kernels/choose/heavy_hitters.hpp"

#include <algorithm>

#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

namespace {

// The slot of the least of n sums, n at least 1; of equal ones that of the key that came last.
index_t lightest(index_t n, const float* sums, const float* position) {
  index_t at = 0;
  for (index_t s = 1; s < n; ++s) {
    if (sums[s] < sums[at] || (sums[s] == sums[at] && position[s] > position[at])) at = s;
  }
  return at;
}

}  // namespace

index_t HeavyHitters::take_in(index_t t, const float* k, const float* v, const HeavyCache& cache) const {
  const index_t slot = t % rules_.recent, leaver = t - rules_.recent;
  index_t gone = -1;
  if (leaver >= 0) {
    index_t to = leaver;  // of the heavy slots
    if (to >= rules_.heavy) {
      to = rules_.heavy > 0 ? lightest(rules_.heavy, cache.sums + rules_.recent, cache.position) : 0;
      const bool stays = rules_.heavy > 0 && cache.sums[rules_.recent + to] < cache.sums[slot];
      gone = stays ? static_cast<index_t>(cache.position[to]) : leaver;
      if (!stays) to = -1;
    }
    if (to >= 0) {
      const index_t heavy = rules_.recent + to;
      std::copy_n(cache.k.data + slot * cache.k.stride, p_.head_dim, cache.k.data + heavy * cache.k.stride);
      if (cache.v.data != nullptr)
        std::copy_n(cache.v.data + slot * cache.v.stride, p_.value_dim, cache.v.data + heavy * cache.v.stride);
      cache.sums[heavy] = cache.sums[slot];
      cache.position[to] = static_cast<float>(leaver);
    }
  }
  std::copy_n(k, p_.head_dim, cache.k.data + slot * cache.k.stride);
  if (cache.v.data != nullptr) std::copy_n(v, p_.value_dim, cache.v.data + slot * cache.v.stride);
  cache.sums[slot] = 0;
  return gone;
}

void HeavyHitters::weigh(index_t t, Rows q, const HeavyCache& cache, float* weights) const {
  const index_t keys = used(t), room = rules_.room();
  for (index_t g = 0; g < group(); ++g) row_dots(keys, p_.head_dim, cache.k, q.data + g * q.stride, weights + g * room);
  softmax(group(), keys, {weights, room}, static_cast<float>(p_.scale()), {weights, room});
}

void HeavyHitters::remember(index_t t, const float* weights, const HeavyCache& cache) const {
  add_column_sums(group(), used(t), {weights, rules_.room()}, cache.sums);
}

void HeavyHitters::answer(index_t t, const float* weights, const HeavyCache& cache, Into out) const {
  gemm(group(), p_.value_dim, used(t), {weights, rules_.room()}, cache.v, out);
}

std::vector<std::int32_t> last_seen(const Problem& p, const HeavyRules& rules, const float* q, const float* k) {
  const index_t n = p.kv_len, d = p.head_dim;
  const HeavyHitters hitters(p, rules);
  const auto floats = [](index_t count) { return std::vector<float>(static_cast<std::size_t>(count)); };
  std::vector<float> keys = floats(rules.room() * d), sums = floats(rules.room()), position = floats(rules.heavy),
                     weights = floats(hitters.weights_floats());
  const HeavyCache cache{{keys.data(), d}, {nullptr, 0}, sums.data(), position.data()};
  std::vector<std::int32_t> last(static_cast<std::size_t>(p.batch * p.kv_heads * n), static_cast<std::int32_t>(n - 1));
  for (index_t head = 0; head < p.batch * p.kv_heads; ++head) {
    const float* const own_q = q + head * hitters.group() * n * d;
    for (index_t t = 0; t < n; ++t) {
      const index_t gone = hitters.take_in(t, k + (head * n + t) * d, nullptr, cache);
      if (gone >= 0) last[static_cast<std::size_t>(head * n + gone)] = static_cast<std::int32_t>(t - 1);
      hitters.weigh(t, {own_q + t * d, n * d}, cache, weights.data());
      hitters.remember(t, weights.data(), cache);
    }
  }
  return last;
}

}  // namespace attn::kernels
