#include <array>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/linear_attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// hedgehog: learned features that are softmaxes themselves, in the place of exp(q.k); the sum over keys is done once for all queries.
//   out_i = sum_j w_ij v_j / (sum_j w_ij + 1e-6),  w_ij = phi(q_i; W_q).phi(k_j; W_k),  phi(x; W) = [softmax(W x), softmax(-W x)];
//   j <= i when causal
//   Zhang et al. 2024, arXiv:2402.04347; W [D,D] for each head, the identity at first. There they are distilled from softmax attention.
//   useful flops 8 N D Dv + 4 N D^2, 4 N D exps; workspace a state of 2 D (Dv + 1) a worker, the maps
// At the identity the features of most tokens are nearly alike, and so are the weights: distance to softmax attention says nothing before W is
// learned.
struct Hedgehog {
  static VariantInfo info() {
    return {
        .title = "Hedgehog, learned softmax features",
        .formula = "out_i = sum_j w_ij v_j / (sum_j w_ij + 1e-6), w_ij = phi(q_i).phi(k_j), phi(x) = [softmax(W x), softmax(-W x)]",
        .paper = "Zhang et al. 2024, arXiv:2402.04347",
        .cost_in_n = "N D^2",
        .exactness = Exactness::fitted,
        .grouped_heads = true,
        .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const NoOptions&) {
    return {{.name = "W_q",
             .shape = {p.heads, p.head_dim, p.head_dim},
             .init = init::identity(),
             .axes = "heads, head_dim, head_dim",
             .doc = "phi(q) is made of W q: columns meet q"},
            {.name = "W_k",
             .shape = {p.kv_heads, p.head_dim, p.head_dim},
             .init = init::identity(),
             .axes = "kv_heads, head_dim, head_dim",
             .doc = "likewise of keys"}};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    const auto tokens = static_cast<double>(p.batch * (p.heads * p.q_len + p.kv_heads * p.kv_len));
    const auto d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.value_dim);
    return {.flops = 2 * tokens * d * (2 * (dv + 1) + d), .bytes = tensor_bytes(p), .exps = 2 * tokens * d};
  }

  static StateSpec state(const Problem& p, const NoOptions&) { return kernels::LinearAttention::state(p, 2 * p.head_dim); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>& parameters) {
    const auto phi = [](const Tensor<T>& x, const Tensor<T>& w) {
      const Tensor<T> y = matmul_transposed(x, w);
      return concat<T>({softmax(y), softmax(-y)}, -1);
    };
    const Tensor<T> products = matmul_transposed(phi(in.q, parameters["W_q"]), per_query_head(p, phi(in.k, parameters["W_k"])));
    const Tensor<T> weights = where(allowed_pairs(p, in, every_key), products, T{0});
    return matmul(weights, per_query_head(p, in.v)) / (sum(weights, -1, Keep::yes) + static_cast<T>(1e-6));
  }

  Hedgehog(const Problem& p, const NoOptions&, WorkspacePlan& workspace)
      : p_(p),
        engine_(p, 2 * p.head_dim, kernels::reciprocals<guard>, workspace),
        maps_(workspace.shared<float>((p.heads + p.kv_heads) * p.head_dim * p.head_dim)) {}

  // The maps as right operands, of queries first.
  void prepare(const ParameterSet<float>& parameters, const Workspace& workspace) const {
    parallel_tasks(p_.heads + p_.kv_heads, [&](index_t h, int) {
      const auto w = h < p_.heads ? parameters.view<3>("W_q")[h] : parameters.view<3>("W_k")[h - p_.heads];
      kernels::transpose(p_.head_dim, p_.head_dim, {w.data_handle(), p_.head_dim}, {map(workspace, h), p_.head_dim});
    });
  }
  auto features(const Workspace& workspace, bool query) const {
    return [&, query, this](const kernels::TokenPanel& t) {
      t.by_head([&](const kernels::TokenPanel& rows) { map_own(rows, query, workspace); });
    };
  }
  void map_own(const kernels::TokenPanel& t, bool query, const Workspace& workspace) const {
    const float* const w = map(workspace, query ? t.head : p_.heads + t.head);
    const index_t d = p_.head_dim;
    kernels::gemm(t.count, d, d, {t.from.data, t.from.stride}, {w, d}, t.to);
    const kernels::Into negated{t.to.data + d, t.to.stride};
    kernels::scale_rows(t.count, d, t.to, minus_ones.data(), negated);
    kernels::softmax(t.count, d, t.to, 1, t.to);
    kernels::softmax(t.count, d, negated, 1, negated);
  }
  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    prepare(parameters, workspace);
    engine_.run(a, workspace, features(workspace, true), features(workspace, false));
  }
  void absorb(const Arrays& tokens, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    prepare(parameters, workspace);
    engine_.absorb(tokens, state, workspace, features(workspace, false));
  }
  void answer(const Arrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    prepare(parameters, workspace);
    engine_.answer(queries, state, workspace, features(workspace, true));
  }
  void merge(State& into, const State& later) const { kernels::LinearAttention::merge(into, later); }

 private:
  static constexpr auto minus_ones = [] {
    std::array<float, kernels::LinearAttention::max_panel> all{};
    all.fill(-1);
    return all;
  }();
  static float guard(float n) { return n + 1e-6f; }
  float* map(const Workspace& workspace, index_t h) const { return workspace.shared(maps_).data() + h * p_.head_dim * p_.head_dim; }

  Problem p_;
  kernels::LinearAttention engine_;
  Booking<float> maps_;
};
ATTN_VARIANT(hedgehog, Hedgehog)

}  // namespace attn
