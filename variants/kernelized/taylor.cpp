#include "attn/kernels/linear/taylor.hpp"

#include <cmath>

#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/linear/linear_attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// taylor: the second-order series of exp(q.k) in the place of exp itself, so that the sum over keys is done once for all queries.
//   out_i = sum_j w_ij v_j / (sum_j w_ij + 1e-6),  w = 1 + t + t^2 / 2,  t = q'_i.k'_j / sqrt(m);  j <= i when causal
//   q' = q W_q, k' = k W_k of m = dim numbers, learned; q and k themselves where dim >= D
//   Arora et al. 2024, arXiv:2402.18668 (Based)
//   By (x.y)^2 = sum_ab x_a x_b y_a y_b these are r = 1 + m + m (m + 1) / 2 features of each token: 153 for m = 16
//   useful flops 4 N r (Dv + 1) and 4 N D m; workspace a state of r (Dv + 1) a worker
// With q and k themselves it is softmax attention up to t^3 / 6: near it for small logits. w is 1/2 at least. The square alone (ReBased) may be as
// small as one likes, and sums of products of features then keep none of its digits in floats.
struct Taylor {
  struct Options {
    index_t dim = 16;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("dim", &Options::dim, 1, 64,
                 "numbers of a query and a key that the series is made of; dim >= D: q and k themselves")
        .budget();
  }

  static VariantInfo info() {
    return {.title = "Taylor features (Based)",
            .formula = "out_i = sum_j w_ij v_j / (sum_j w_ij + 1e-6), w = 1 + t + t^2 / 2, t = q'_i.k'_j / sqrt(m)",
            .paper = "Arora et al. 2024, arXiv:2402.18668",
            .cost_in_n = "N dim^2 D",
            .fine_print = "Each pair of numbers of a token counts once.",
            .exactness = Exactness::fitted,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t m = dim(p, o);
    if (m >= p.head_dim) return {};
    const Init projection = init::normal(1 / std::sqrt(static_cast<double>(p.head_dim)));
    return {
        {.name = "W_q", .shape = {p.heads, p.head_dim, m}, .init = projection, .axes = "heads, head_dim, dim", .doc = "q' = q W_q"},
        {.name = "W_k",
         .shape = {p.kv_heads, p.head_dim, m},
         .init = projection,
         .axes = "kv_heads, head_dim, dim",
         .doc = "k' = k W_k"}};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto tokens = static_cast<double>(p.batch * (p.heads * p.q_len + p.kv_heads * p.kv_len));
    const index_t m = dim(p, o), projected = m < p.head_dim ? p.head_dim * m : 0;
    return {.flops = 2 * tokens * static_cast<double>(features(p, o) * (p.value_dim + 1) + projected),
            .bytes = tensor_bytes(p),
            .exps = 0};
  }

  static StateSpec state(const Problem& p, const Options& o) { return kernels::LinearAttention::state(p, features(p, o)); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const index_t m = dim(p, o);
    const bool projected = m < p.head_dim;
    const Tensor<T> q = projected ? matmul(in.q, parameters["W_q"]) : in.q, k = projected ? matmul(in.k, parameters["W_k"]) : in.k;
    const Tensor<T> t = matmul_transposed(q, per_query_head(p, k)) / static_cast<T>(std::sqrt(static_cast<double>(m)));
    const Tensor<T> series = Tensor<T>(1) + t + square(t) / T{2};
    const Tensor<T> weights = where(allowed_pairs(p, in, every_key), series, T{0});
    return matmul(weights, per_query_head(p, in.v)) / (sum(weights, -1, Keep::yes) + static_cast<T>(1e-6));
  }

  Taylor(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        dim_(dim(p, o)),
        engine_(p, features(p, o), kernels::reciprocals<guard>, workspace),
        rows_(workspace.per_worker<float>(kernels::LinearAttention::max_panel * dim_)) {}

  // x W where there is one, then the products.
  void map(const kernels::TokenPanel& t, const ParameterSet<float>& parameters, bool query, const Workspace& workspace) const {
    if (dim_ >= p_.head_dim) return kernels::taylor(t.count, dim_, t.from, t.to);
    t.by_head([&](const kernels::TokenPanel& rows) { map_own(rows, parameters, query, workspace); });
  }
  void map_own(const kernels::TokenPanel& t, const ParameterSet<float>& parameters, bool query, const Workspace& workspace) const {
    const kernels::Into own{workspace.of(t.worker, rows_).data(), dim_};
    const auto w = parameters.view<3>(query ? "W_q" : "W_k")[t.head];
    kernels::gemm(t.count, dim_, p_.head_dim, {t.from.data, t.from.stride}, {w.data_handle(), dim_}, own);
    kernels::taylor(t.count, dim_, own, t.to);
  }
  auto features_of(const ParameterSet<float>& parameters, bool query, const Workspace& workspace) const {
    return [&, query, this](const kernels::TokenPanel& t) { map(t, parameters, query, workspace); };
  }

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    engine_.run(a, workspace, features_of(parameters, true, workspace), features_of(parameters, false, workspace));
  }
  void absorb(const Arrays& tokens, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    engine_.absorb(tokens, state, workspace, features_of(parameters, false, workspace));
  }
  void answer(const Arrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    engine_.answer(queries, state, workspace, features_of(parameters, true, workspace));
  }
  void merge(State& into, const State& later) const { kernels::LinearAttention::merge(into, later); }

 private:
  static float guard(float n) { return n + 1e-6f; }
  static index_t dim(const Problem& p, const Options& o) { return std::min(o.dim, p.head_dim); }
  static index_t features(const Problem& p, const Options& o) { return kernels::taylor_features(dim(p, o)); }

  Problem p_;
  index_t dim_;
  kernels::LinearAttention engine_;
  Booking<float> rows_;
};
ATTN_VARIANT(taylor, Taylor)

}  // namespace attn
