#include <algorithm>
#include <limits>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/linear_attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// efficient: softmax of queries over their features and of keys over the positions, so that rows of weights sum to one.
//   out = rho_q(Q) (rho_k(K)^T V),  rho_q: softmax of each row, rho_k: softmax of each column
//   Shen et al. 2018, arXiv:1812.01243, section 3.3
//   useful flops 4 N D Dv, 2 N D exps; no factor 1/sqrt(D), no denominator; workspace a state of D (Dv + 1) a worker
//   The softmax over positions sees them all, so the paper has no causal form.
struct Efficient {
  static VariantInfo info() {
    return {.title = "Efficient attention",
            .formula = "out = softmax_features(Q) (softmax_positions(K)^T V)",
            .paper = "Shen et al. 2018, arXiv:1812.01243, section 3.3",
            .cost_in_n = "N D^2",
            .exactness = Exactness::different,
            .causality = Causality::never,
            .grouped_heads = true,
            .time_exponent = 1,
            .acausal = "its softmax of keys runs over all positions"};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    const double tokens = static_cast<double>(p.batch * (p.heads * p.q_len + p.kv_heads * p.kv_len));
    const auto d = static_cast<double>(p.head_dim);
    return {.flops = 2 * tokens * d * static_cast<double>(p.value_dim), .bytes = tensor_bytes(p), .exps = tokens * d};
  }

  // The sum over the keys of feature times value.
  static StateSpec state(const Problem& p, const NoOptions&) { return {{{"sums", {p.kv_heads, p.head_dim, p.value_dim}}}}; }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    const Tensor<T> context = matmul(transpose(softmax(in.k, -2)), in.v);
    return matmul(softmax(in.q, -1), per_query_head(p, context));
  }

  Efficient(const Problem& p, const NoOptions&, WorkspacePlan& workspace)
      : p_(p),
        engine_(p, p.head_dim, nullptr, workspace),
        top_(workspace.shared<float>(p.batch * p.kv_heads * p.head_dim)),
        share_(workspace.per_worker<float>(p.head_dim)) {}

  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const auto top = [&](index_t batch, index_t head) {
      return workspace.shared(top_).data() + (batch * p_.kv_heads + head) * p_.head_dim;
    };
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t task, int) {
      const index_t batch = task / p_.kv_heads, head = task % p_.kv_heads;
      const auto k = a.k[batch][head];
      std::fill_n(top(batch, head), p_.head_dim, -std::numeric_limits<float>::infinity());
      kernels::raise_column_max(p_.kv_len, p_.head_dim, {k.row(0), k.stride(0)}, top(batch, head));
    });
    engine_.run(
        {a.q, a.k, a.v, a.out}, workspace,
        [&](const kernels::TokenPanel& t) {
          kernels::softmax(t.count, p_.head_dim, t.from, 1, t.to);
          float* const share = workspace.of(t.worker, share_).data();
          for (index_t x = 0; x < p_.head_dim; ++x) share[x] = 1 / t.total[x];
          kernels::scale_columns(t.count, p_.head_dim, t.to, share, t.to);
        },
        [&](const kernels::TokenPanel& t) { kernels::exp_minus(t.count, p_.head_dim, t.from, top(t.batch, t.head), t.to); });
  }

 private:
  Problem p_;
  kernels::LinearAttention engine_;
  Booking<float> top_;    // of each column of K
  Booking<float> share_;  // of a column in its sum
};
ATTN_VARIANT(efficient, Efficient)

}  // namespace attn
