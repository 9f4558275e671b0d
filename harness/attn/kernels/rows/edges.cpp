#include "attn/kernels/rows/edges.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/rows/edges.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

// f(vectors of q and of a key at a column, sum so far) -> sum; four keys at a time, so that their sums do not wait for each other.
template <class Fn>
HWY_INLINE void EachKey(const EdgeScores& e, index_t head_dim, float scale, const Fn& f) {
  const F d;
  constexpr index_t together = 4;
  const auto count = static_cast<index_t>(e.node.size());
  for (index_t first = 0; first < count; first += together) {
    const float* k[together];
    for (index_t i = 0; i < together; ++i) k[i] = e.k[std::min(first + i, count - 1)];
    V sum[together] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    for (index_t c = 0; c < head_dim; c += kLanes) {
      const V q = load_first(e.q + c, head_dim - c);
      for (index_t i = 0; i < together; ++i) sum[i] = f(q, load_first(k[i] + c, head_dim - c), c, sum[i]);
    }
    for (index_t i = 0; i < std::min(together, count - first); ++i)
      e.to[first + i] = scale * hn::GetLane(hn::SumOfLanes(d, sum[i]));
  }
}

void EdgeDots(const EdgeScores& e, index_t head_dim, float scale) {
  EachKey(e, head_dim, scale, [](V q, V k, index_t, V sum) HWY_ATTR { return hn::MulAdd(q, k, sum); });
}

void EdgeLeakyDots(const EdgeScores& e, index_t head_dim, const float* weights, float slope) {
  const V s = hn::Set(F(), slope);
  EachKey(e, head_dim, 1, [=](V q, V k, index_t c, V sum) HWY_ATTR {
    const V x = hn::Add(q, k);
    return hn::MulAdd(load_first(weights + c, head_dim - c), hn::Max(x, hn::Mul(s, x)), sum);
  });
}

void EdgeWeights(float* scores, index_t count) {
  const F d;
  if (count == 0) return;
  float largest = scores[0];
  for (index_t i = 1; i < count; ++i) largest = std::max(largest, scores[i]);
  const V log2_e = hn::Set(d, 1.44269504f), top = hn::Set(d, largest);
  V sum = hn::Zero(d);
  for (index_t i = 0; i < count; i += kLanes) {
    V w = exp2_lanes(hn::Mul(hn::Sub(load_first(scores + i, count - i), top), log2_e));
    if (count - i < kLanes) w = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(count - i)), w);
    store_first(w, scores + i, count - i);
    sum = hn::Add(sum, w);
  }
  // A quotient, not a product with 1 / sum: of a single edge it is 1.
  const V all = hn::SumOfLanes(d, sum);
  for (index_t i = 0; i < count; i += kLanes) store_first(hn::Div(load_first(scores + i, count - i), all), scores + i, count - i);
}

void EdgeSum(const float* weights, const float* const* v, index_t count, index_t value_dim, float* out) {
  const F d;
  constexpr index_t together = 4;  // vectors of columns: their sums do not wait for each other
  for (index_t c = 0; c < value_dim; c += together * kLanes) {
    V sum[together] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    const index_t vectors = std::min(together, (value_dim - c + kLanes - 1) / kLanes);
    for (index_t e = 0; e < count; ++e) {
      const V w = hn::Set(d, weights[e]);
      for (index_t i = 0; i < vectors; ++i) {
        const index_t at = c + i * kLanes;
        sum[i] = hn::MulAdd(w, load_first(v[e] + at, value_dim - at), sum[i]);
      }
    }
    for (index_t i = 0; i < vectors; ++i) {
      const index_t at = c + i * kLanes;
      store_first(sum[i], out + at, value_dim - at);
    }
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(EdgeDots);
HWY_EXPORT(EdgeLeakyDots);
HWY_EXPORT(EdgeWeights);
HWY_EXPORT(EdgeSum);

void edge_dots(const EdgeScores& e, index_t head_dim, float scale) { HWY_DYNAMIC_DISPATCH(EdgeDots)(e, head_dim, scale); }
void edge_leaky_dots(const EdgeScores& e, index_t head_dim, const float* weights, float slope) {
  HWY_DYNAMIC_DISPATCH(EdgeLeakyDots)(e, head_dim, weights, slope);
}
void edge_weights(float* scores, index_t count) { HWY_DYNAMIC_DISPATCH(EdgeWeights)(scores, count); }
void edge_sum(const float* weights, const float* const* v, index_t count, index_t value_dim, float* out) {
  HWY_DYNAMIC_DISPATCH(EdgeSum)(weights, v, count, value_dim, out);
}

namespace {

constexpr index_t task_queries = 128;

// The row on its way into the first cache.
void fetch(const float* row, index_t floats) {
  for (index_t c = 0; c < floats; c += 16) __builtin_prefetch(row + c, 0, 3);
}

}  // namespace

EdgeAttention::EdgeAttention(const Problem& p, index_t degree, const EdgeRules& rules, WorkspacePlan& plan, bool reads_keys)
    : p_(p),
      degree_(degree),
      room_(degree + (rules.loops == Loops::added ? 1 : 0)),
      rules_(rules),
      reads_keys_(reads_keys),
      nodes_(plan.per_worker<std::int32_t>(2 * room_)),
      rows_(plan.per_worker<const float*>(4 * room_)),
      scores_(plan.per_worker<float>(room_)) {}

index_t EdgeAttention::list(const float* neighbours, index_t query, std::int32_t* to) const {
  std::int32_t* end = to;
  for (index_t e = 0; e < degree_; ++e) {
    const auto node = static_cast<index_t>(neighbours[e]);
    if (node < 0 || node >= p_.kv_len || (p_.causal && node > query)) continue;
    if (node == query && rules_.loops != Loops::given) continue;
    if (rules_.once && std::find(to, end, node) != end) continue;
    *end++ = static_cast<std::int32_t>(node);
  }
  if (rules_.loops == Loops::added) *end++ = static_cast<std::int32_t>(query);
  return end - to;
}

void EdgeAttention::run(const Views& a, const Workspace& workspace, Score score) const {
  const index_t parts = (p_.q_len + task_queries - 1) / task_queries, group = p_.heads / p_.kv_heads;
  // The queries of a kv head one after another: its K and V stay near.
  parallel_tasks(p_.batch * p_.kv_heads * parts, [&](index_t task, int worker) {
    const index_t b = task / parts / p_.kv_heads, kv_head = task / parts % p_.kv_heads, first = task % parts * task_queries;
    const index_t end = std::min(first + task_queries, p_.q_len);
    const View<const float, 2> k = a.k[b][kv_head], v = a.v[b][kv_head], near = a.neighbours[b][0];
    float* const scores = workspace.of(worker, scores_).data();
    struct List {
      std::int32_t* node;
      const float** k;
      const float** v;
      index_t count;
    };
    std::array<List, 2> lists;  // of this query and of the next
    for (index_t i = 0; i < 2; ++i) {
      const float** rows = workspace.of(worker, rows_).data() + 2 * i * room_;
      lists[static_cast<std::size_t>(i)] = {workspace.of(worker, nodes_).data() + i * room_, rows, rows + room_, 0};
    }
    const auto enter = [&](index_t query, List& to) {
      to.count = list(near.row(query), query, to.node);
      for (index_t e = 0; e < to.count; ++e) {
        to.k[e] = k.row(to.node[e]);
        to.v[e] = v.row(to.node[e]);
        if (reads_keys_) fetch(to.k[e], p_.head_dim);
        fetch(to.v[e], p_.value_dim);
      }
    };
    enter(first, lists[0]);
    for (index_t query = first; query < end; ++query) {
      const List& now = lists[static_cast<std::size_t>((query - first) % 2)];
      if (query + 1 < end) enter(query + 1, lists[static_cast<std::size_t>((query + 1 - first) % 2)]);
      for (index_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        score({b, head, query, a.q[b][head].row(query), {now.node, static_cast<std::size_t>(now.count)}, now.k, scores});
        edge_weights(scores, now.count);
        edge_sum(scores, now.v, now.count, p_.value_dim, a.out[b][head].row(query));
      }
    }
  });
}

}  // namespace attn::kernels
#endif
