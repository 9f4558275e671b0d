#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/linear_attention.hpp"
#include "attn/kernels/linear/linear_attention_backward.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// linear: a kernel of positive features in the place of exp(q.k); the sum over keys is done once for all queries.
//   out_i = sum_j w_ij v_j / (sum_j w_ij + 1e-6),  w_ij = phi(q_i).phi(k_j),  phi(x) = elu(x) + 1;  j <= i when causal
//   Katharopoulos et al. 2020, arXiv:2006.16236, sections 3.2 and 3.3
//   useful flops 4 N D Dv, 2 N D exps; no factor 1/sqrt(D); workspace a state of D (Dv + 1) a worker
struct Linear {
  using Engine = kernels::LinearAttention;

  static VariantInfo info() {
    return {.title = "Linear transformer",
            .formula = "out_i = phi(q_i).sum_j phi(k_j) v_j / (phi(q_i).sum_j phi(k_j) + 1e-6), phi = elu + 1",
            .paper = "Katharopoulos et al. 2020, arXiv:2006.16236, section 3.2",
            .cost_in_n = "N D^2",
            .exactness = Exactness::different,
            .grouped_heads = true,
            .in_default_sweep = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    const auto queries = static_cast<double>(p.batch * p.heads * p.q_len);
    const auto keys = static_cast<double>(p.batch * p.kv_heads * p.kv_len);
    const auto d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.value_dim);
    return {.flops = 2 * (queries + keys) * d * (dv + 1), .bytes = tensor_bytes(p), .exps = (queries + keys) * d};
  }

  static StateSpec state(const Problem& p, const NoOptions&) { return kernels::LinearAttention::state(p, p.head_dim); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    const Tensor<T> products = matmul_transposed(phi(in.q), per_query_head(p, phi(in.k)));
    const Tensor<T> weights = where(allowed_pairs(p, in, every_key), products, T{0});
    return matmul(weights, per_query_head(p, in.v)) / (sum(weights, -1, Keep::yes) + static_cast<T>(1e-6));
  }

  Linear(const Problem& p, const NoOptions&, WorkspacePlan& workspace)
      : p_(p),
        engine_(p, p.head_dim, kernels::reciprocals<guard>, workspace),
        backward_(p, p.head_dim, kernels::reciprocals<guard>, workspace) {}

  auto features() const {
    return [this](const kernels::TokenPanel& t) { kernels::elu_plus_one(t.count, p_.head_dim, t.from, t.to); };
  }
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const auto phi = features();
    engine_.run(a, workspace, phi, phi);
  }
  void absorb(const Arrays& tokens, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    engine_.absorb(tokens, state, workspace, features());
  }
  void answer(const Arrays& queries, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    engine_.answer(queries, state, workspace, features());
  }
  void step(const Arrays& token, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    const auto phi = features();
    engine_.step(token, state, workspace, phi, phi);
  }
  void merge(State& into, const State& later) const { kernels::LinearAttention::merge(into, later); }
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    const auto phi = features();
    const auto pull = [&](const kernels::FeaturePanel& t) {
      kernels::elu_plus_one_gradient(t.tokens.count, p_.head_dim, t.tokens.to, t.gradient, t.d_tokens);
    };
    backward_.run({a, g}, workspace, phi, phi, pull, pull);
  }

 private:
  static float guard(float n) { return n + 1e-6f; }

  // e^x itself below zero: elu(x) + 1 would round to 0 from x = -17 on.
  template <class T>
  static Tensor<T> phi(const Tensor<T>& x) {
    return where(x > T{0}, x + T{1}, exp(minimum(x, T{0})));
  }

  Problem p_;
  kernels::LinearAttention engine_;
  kernels::LinearAttentionBackward backward_;
};
ATTN_VARIANT(linear, Linear)

}  // namespace attn
