#include "attn/kernels/softmax/additive.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/softmax/additive.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>

#include "attn/kernels/dense/activations-inl.hpp"
#include "attn/kernels/dense/rows.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

// Beyond a + b = 10 tanh is 1 in float; and four factors of 2^30 still multiply to a float.
inline constexpr float kLargest = 0x1p30f;

// to_ij = -2 sum_c w_c / (1 + e^2(a_ic + b_jc)), which is the logit but for a number that all keys share. a [m,size] and
// b [size,n] hold e^2a and e^2b; size is a multiple of 4.
void AdditiveScores(index_t m, index_t n, index_t size, Rows a, Rows b, const float* w, Into to) {
  const F d;
  const V one = hn::Set(d, 1.0f), largest = hn::Set(d, kLargest);
  for (index_t i = 0; i < m; ++i) {
    const float* query = a.data + i * a.stride;
    for (index_t j = 0; j < n; j += kLanes) {
      V sum = hn::Zero(d);
      for (index_t c = 0; c < size; c += 4) {
        V x[4];
        for (int u = 0; u < 4; ++u) {
          const V key = load_first(b.data + (c + u) * b.stride + j, n - j);
          x[u] = hn::Add(hn::Min(largest, hn::Mul(hn::Set(d, query[c + u]), key)), one);
        }
        const V first = hn::MulAdd(hn::Set(d, w[c]), x[1], hn::Mul(hn::Set(d, w[c + 1]), x[0]));
        const V second = hn::MulAdd(hn::Set(d, w[c + 2]), x[3], hn::Mul(hn::Set(d, w[c + 3]), x[2]));
        const V left = hn::Mul(x[0], x[1]), right = hn::Mul(x[2], x[3]);
        sum = hn::Add(sum, hn::Div(hn::MulAdd(first, right, hn::Mul(second, left)), hn::Mul(left, right)));
      }
      store_first(hn::Mul(hn::Set(d, -2.0f), sum), to.data + i * to.stride + j, n - j);
    }
  }
}

// e^2x with x held to +-40: e^80 and e^-80 are normal floats.
void ExpTwice(index_t m, index_t n, Rows from, Into to) {
  const F d;
  const V bound = hn::Set(d, 80.0f);
  for (index_t i = 0; i < m; ++i) {
    for (index_t j = 0; j < n; j += kLanes) {
      const V x = load_first(from.data + i * from.stride + j, n - j);
      store_first(exp_lanes(hn::Max(hn::Neg(bound), hn::Min(bound, hn::Add(x, x)))), to.data + i * to.stride + j, n - j);
    }
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(AdditiveScores);
HWY_EXPORT(ExpTwice);

namespace {
constexpr index_t panel = 64;  // tokens that are projected at a time
}

AdditiveAttention::AdditiveAttention(const Problem& p, index_t size, WorkspacePlan& workspace)
    : p_(p),
      size_(size),
      padded_((size + 3) / 4 * 4),
      queries_(workspace.shared<float>(p.batch * p.heads * p.q_len * padded_)),
      keys_(workspace.shared<float>(p.batch * p.heads * p.kv_len * padded_)),
      scratch_(workspace.per_worker<float>(panel * padded_)),
      sum_(p, WeightedSum::Kind::softmax, WeightedSum::Sharing::none, workspace) {}

// Padding is e^0 = 1; its weights are 0.
void AdditiveAttention::project(View<const float, 4> x, View<const float, 3> weights, bool keys, float* to,
                                const Workspace& workspace) const {
  const index_t n = x.extent(2), panels = (n + panel - 1) / panel;
  parallel_tasks(p_.batch * p_.heads * panels, [&](index_t task, int worker) {
    const index_t first = task % panels * panel, rows = std::min(panel, n - first), head = task / panels;
    const auto from = x[head / p_.heads][keys ? p_.kv_head(head % p_.heads) : head % p_.heads];
    const auto w = weights[head % p_.heads];
    float* own = to + head * n * padded_;
    const Into projected{keys ? workspace.of(worker, scratch_).data() : own + first * padded_, padded_};
    for (index_t i = 0; i < rows; ++i) std::fill_n(projected.data + i * padded_ + size_, padded_ - size_, 0.0f);
    gemm(rows, size_, p_.head_dim, {from.row(first), from.stride(0)}, {w.data_handle(), size_}, projected);
    HWY_DYNAMIC_DISPATCH(ExpTwice)(rows, padded_, projected, projected);
    if (keys) transpose(rows, padded_, projected, {own + first, n});
  });
}

void AdditiveAttention::run(const Views& arrays, const Workspace& workspace) const {
  float *queries = workspace.shared(queries_).data(), *keys = workspace.shared(keys_).data();
  project(arrays.q, arrays.query_weights, false, queries, workspace);
  project(arrays.k, arrays.key_weights, true, keys, workspace);
  sum_.run(arrays.v, arrays.out, workspace, [&](const WeightBlock& block) -> Rows {
    const index_t head = block.batch * p_.heads + block.head;
    std::array<float, max_size + 3> weights{};
    std::copy_n(arrays.weights.row(block.head), size_, weights.data());
    HWY_DYNAMIC_DISPATCH(AdditiveScores)
    (block.rows, block.keys, padded_, {queries + (head * p_.q_len + block.first) * padded_, padded_},
     {keys + head * p_.kv_len * padded_, p_.kv_len}, weights.data(), block.to);
    return block.to;
  });
}

}  // namespace attn::kernels
#endif
