#include "attn/kernels/softmax/additive.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/softmax/additive.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>

#include "attn/kernels/dense/activations-inl.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/machine/flush_denormals.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

// Beyond a + b = 10 tanh is 1 in float; and four factors of 2^30 still multiply to a float.
inline constexpr float kLargest = 0x1p30f, kLargestSum = 10.397f;

// to_ij = -2 sum_c w_c / (1 + e^2(a_ic + b_jc)), which is the logit but for a number that all keys share; exponential(query, c, key)
// gives the powers of a vector of keys. b [size,n]; size is a multiple of 4.
template <class Exponential>
HWY_INLINE V scores(index_t size, const float* keys, index_t stride, index_t count, const float* w, Exponential exponential) {
  const F d;
  const V one = hn::Set(d, 1.0f);
  V sum = hn::Zero(d);
  for (index_t c = 0; c < size; c += 4) {
    V x[4];
    for (int u = 0; u < 4; ++u) x[u] = hn::Add(exponential(c + u, load_first(keys + (c + u) * stride, count)), one);
    const V first = hn::MulAdd(hn::Set(d, w[c]), x[1], hn::Mul(hn::Set(d, w[c + 1]), x[0]));
    const V second = hn::MulAdd(hn::Set(d, w[c + 2]), x[3], hn::Mul(hn::Set(d, w[c + 3]), x[2]));
    const V left = hn::Mul(x[0], x[1]), right = hn::Mul(x[2], x[3]);
    sum = hn::Add(sum, hn::Div(hn::MulAdd(first, right, hn::Mul(second, left)), hn::Mul(left, right)));
  }
  return hn::Mul(hn::Set(d, -2.0f), sum);
}

// Of keys that are not wide: a holds e^2a.
void AdditiveScores(index_t m, index_t n, index_t size, Rows a, Rows b, const float* w, Into to) {
  const F d;
  const V largest = hn::Set(d, kLargest);
  for (index_t i = 0; i < m; ++i) {
    const float* query = a.data + i * a.stride;
    for (index_t j = 0; j < n; j += kLanes) {
      const V sum = scores(size, b.data + j, b.stride, n - j, w,
                           [&](index_t c, V key) HWY_ATTR { return hn::Min(largest, hn::Mul(hn::Set(d, query[c]), key)); });
      store_first(sum, to.data + i * to.stride + j, n - j);
    }
  }
}

// Where some are wide. Each key gets the bits that it would have without its neighbours, which may come after a query.
void WideAdditiveScores(index_t m, index_t n, index_t size, Rows a, Rows exp_a, Rows b, const float* wide, const float* w,
                        Into to) {
  const F d;
  const V largest = hn::Set(d, kLargest), most = hn::Set(d, kLargestSum);
  for (index_t i = 0; i < m; ++i) {
    const float *query = a.data + i * a.stride, *exp_query = exp_a.data + i * exp_a.stride;
    for (index_t j = 0; j < n; j += kLanes) {
      const auto is_wide = hn::Gt(load_first(wide + j, n - j), hn::Zero(d));
      const V sum = scores(size, b.data + j, b.stride, n - j, w, [&](index_t c, V key) HWY_ATTR {
        const V narrow = hn::Min(largest, hn::Mul(hn::Set(d, exp_query[c]), key));
        const V joined = hn::Min(most, hn::Add(hn::Set(d, query[c]), key));
        return hn::IfThenElse(is_wide, exp_lanes(hn::Add(joined, joined)), narrow);
      });
      store_first(sum, to.data + i * to.stride + j, n - j);
    }
  }
}

// e^2x with x held to +-43, so that it is a normal float.
HWY_INLINE V exp_twice(V x) {
  const V bound = hn::Set(F(), 86.0f);
  return exp_lanes(hn::Max(hn::Neg(bound), hn::Min(bound, hn::Add(x, x))));
}

void ExpTwice(index_t m, index_t n, Rows from, Into to) {
  for (index_t i = 0; i < m; ++i) {
    for (index_t j = 0; j < n; j += kLanes)
      store_first(exp_twice(load_first(from.data + i * from.stride + j, n - j)), to.data + i * to.stride + j, n - j);
  }
}

// Rows whose elements are all within `bound` become e^2x; the others stay, and are marked by 1.
void ExpTwiceWithin(index_t m, index_t n, float bound, Into x, float* wide) {
  const F d;
  for (index_t i = 0; i < m; ++i) {
    float* row = x.data + i * x.stride;
    V most = hn::Zero(d);
    for (index_t j = 0; j < n; j += kLanes) most = hn::Max(hn::Abs(load_first(row + j, n - j)), most);
    wide[i] = hn::GetLane(hn::MaxOfLanes(d, most)) > bound;
    if (wide[i] > 0) continue;
    for (index_t j = 0; j < n; j += kLanes) store_first(exp_twice(load_first(row + j, n - j)), row + j, n - j);
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(AdditiveScores);
HWY_EXPORT(WideAdditiveScores);
HWY_EXPORT(ExpTwice);
HWY_EXPORT(ExpTwiceWithin);

namespace {

constexpr index_t panel = 64;  // tokens that are taken at a time

// Of a key's |b|. With 2a held to 86 e^2a e^2b is then right or, at e^26 and more, far beyond where tanh is 1.
constexpr float widest = 30;

}  // namespace

AdditiveAttention::AdditiveAttention(const Problem& p, index_t size, WorkspacePlan& workspace)
    : p_(p),
      size_(size),
      padded_((size + 3) / 4 * 4),
      queries_(workspace.shared<float>(p.batch * p.heads * p.q_len * padded_)),
      keys_(workspace.shared<float>(p.batch * p.heads * p.kv_len * padded_)),
      wide_(workspace.shared<float>(p.batch * p.heads * p.kv_len)),
      scratch_(workspace.per_worker<float>(std::min(WeightedSum::max_rows, std::max(p.q_len, panel)) * padded_)),
      sum_(p, WeightedSum::Kind::softmax, WeightedSum::Sharing::none, workspace) {}

// Padding is 0, or e^0 = 1; its weights are 0.
void AdditiveAttention::project(const View<const float, 4>& x, const View<const float, 3>& weights, bool keys,
                                const Workspace& workspace) const {
  const index_t n = x.extent(2), panels = (n + panel - 1) / panel;
  parallel_tasks(p_.batch * p_.heads * panels, [&](index_t task, int worker) {
    const index_t first = task % panels * panel, rows = std::min(panel, n - first), head = task / panels;
    const auto from = x[head / p_.heads][keys ? p_.kv_head(head % p_.heads) : head % p_.heads];
    const auto w = weights[head % p_.heads];
    float* own = workspace.shared(keys ? keys_ : queries_).data() + head * n * padded_;
    const Into to{keys ? workspace.of(worker, scratch_).data() : own + first * padded_, padded_};
    for (index_t i = 0; i < rows; ++i) std::fill_n(to.data + i * padded_ + size_, padded_ - size_, 0.0f);
    gemm(rows, size_, p_.head_dim, {from.row(first), from.stride(0)}, {w.data_handle(), size_}, to);
    if (!keys) return;
    HWY_DYNAMIC_DISPATCH(ExpTwiceWithin)(rows, padded_, widest, to, workspace.shared(wide_).data() + head * n + first);
    transpose(rows, padded_, to, {own + first, n});
  });
}

void AdditiveAttention::score(const WeightBlock& block, const float* weights, const Workspace& workspace) const {
  const DenormalsAreZero fast;  // e^2(a + b) passes through them
  const index_t head = block.batch * p_.heads + block.head;
  const float* keys = workspace.shared(keys_).data() + head * p_.kv_len * padded_;
  const float* wide = workspace.shared(wide_).data() + head * p_.kv_len;
  const Rows queries{workspace.shared(queries_).data() + (head * p_.q_len + block.first) * padded_, padded_};
  const Into exp_queries{workspace.of(block.worker, scratch_).data(), padded_};
  HWY_DYNAMIC_DISPATCH(ExpTwice)(block.rows, padded_, queries, exp_queries);
  // Panels where no key is wide are taken together.
  const auto some_wide = [&](index_t from) {
    return std::any_of(wide + from, wide + std::min(from + panel, block.keys), [](float x) { return x > 0; });
  };
  for (index_t from = 0, to; from < block.keys; from = to) {
    const bool is_wide = some_wide(from);
    for (to = from + panel; to < block.keys && some_wide(to) == is_wide;) to += panel;
    const index_t count = std::min(to, block.keys) - from;
    const Into own{block.to.data + from, block.to.stride};
    if (is_wide) {
      HWY_DYNAMIC_DISPATCH(WideAdditiveScores)
      (block.rows, count, padded_, queries, exp_queries, {keys + from, p_.kv_len}, wide + from, weights, own);
    } else {
      HWY_DYNAMIC_DISPATCH(AdditiveScores)(block.rows, count, padded_, exp_queries, {keys + from, p_.kv_len}, weights, own);
    }
  }
}

void AdditiveAttention::run(const Views& arrays, const Workspace& workspace) const {
  project(arrays.q, arrays.query_weights, false, workspace);
  project(arrays.k, arrays.key_weights, true, workspace);
  sum_.run(arrays.v, arrays.out, workspace, [&](const WeightBlock& block) -> Rows {
    std::array<float, max_size + 3> weights{};
    std::copy_n(arrays.weights.row(block.head), size_, weights.data());
    score(block, weights.data(), workspace);
    return block.to;
  });
}

}  // namespace attn::kernels
#endif
