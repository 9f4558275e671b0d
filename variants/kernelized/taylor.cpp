#include "attn/kernels/linear/taylor.hpp"

#include <array>
#include <cmath>

#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/linear_attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// taylor: the second-order series of exp(q.k) in the place of exp itself, so that the sum over keys is done once for all queries.
//   out_i = sum_j w_ij v_j / (sum_j w_ij + 1e-6),  w = 1 + t + t^2 / 2,  t = q'_i.k'_j / sqrt(m);  j <= i when causal
//   q' = q W_q, k' = k W_k of m = dim numbers, learned; q and k themselves where dim >= D
//   even=yes: w = t^2, of q' and k' normalised and then scaled and shifted, gamma LN(.) + beta
//   Arora et al. 2024, arXiv:2402.18668 (Based); even: Aksenov et al. 2024, arXiv:2402.10644 (ReBased)
//   By (x.y)^2 = sum_ab x_a x_b y_a y_b these are r = 1 + m + m (m + 1) / 2 features of each token: 153 for m = 16
//   useful flops 4 N r (Dv + 1) and 4 N D m; workspace a state of r (Dv + 1) a worker
// With q and k themselves it is softmax attention up to t^3 / 6: near it for small logits. t^2 may be 0 for all keys: the output is then 0.
struct Taylor {
  struct Options {
    index_t dim = 16;
    bool even = false;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("dim", &Options::dim, 1, 64,
                 "numbers of a query and a key that the series is made of; dim >= D: q and k themselves")
        .budget()
        .flag("even", &Options::even, "yes: the square alone, of q and k normalised with a learned scale and shift");
  }

  static VariantInfo info() {
    return {.title = "Taylor features (Based, ReBased)",
            .formula = "out_i = sum_j w_ij v_j / (sum_j w_ij + 1e-6), w = 1 + t + t^2 / 2, t = q'_i.k'_j / sqrt(m)",
            .paper = "Arora et al. 2024, arXiv:2402.18668",
            .cost_in_n = "N dim^2 D",
            .fine_print = "LN of even=yes is (x - mean) / sqrt(variance + 1e-6). Each pair of numbers of a token counts once.",
            .exactness = Exactness::fitted,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    Parameters list;
    const index_t m = dim(p, o);
    const auto add = [&](const char* name, Shape shape, const Init& init, const char* axes, const char* doc) {
      list.push_back({.name = name, .shape = std::move(shape), .init = init, .axes = axes, .doc = doc});
    };
    if (m < p.head_dim) {
      const Init projection = init::normal(1 / std::sqrt(static_cast<double>(p.head_dim)));
      add("W_q", {p.heads, p.head_dim, m}, projection, "heads, head_dim, dim", "q' = q W_q");
      add("W_k", {p.kv_heads, p.head_dim, m}, projection, "kv_heads, head_dim, dim", "k' = k W_k");
    }
    if (!o.even) return list;
    add("gamma_q", {p.heads, 1, m}, init::constant(1), "heads, 1, dim", "q' = gamma LN(q') + beta");
    add("beta_q", {p.heads, 1, m}, init::zeros(), "heads, 1, dim", "");
    add("gamma_k", {p.kv_heads, 1, m}, init::constant(1), "kv_heads, 1, dim", "k' = gamma LN(k') + beta");
    add("beta_k", {p.kv_heads, 1, m}, init::zeros(), "kv_heads, 1, dim", "");
    return list;
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
    const auto prepared = [&](Tensor<T> x, const char* w, const char* gamma, const char* beta) {
      if (m < p.head_dim) x = matmul(x, parameters[w]);
      return o.even ? layer_norm(x, 1e-6) * parameters[gamma] + parameters[beta] : x;
    };
    const Tensor<T> q = prepared(in.q, "W_q", "gamma_q", "beta_q"), k = prepared(in.k, "W_k", "gamma_k", "beta_k");
    const Tensor<T> t = matmul_transposed(q, per_query_head(p, k)) / static_cast<T>(std::sqrt(static_cast<double>(m)));
    const Tensor<T> series = o.even ? square(t) : T{1} + t + square(t) / T{2};
    const Tensor<T> weights = where(allowed_pairs(p, in, every_key), series, T{0});
    return matmul(weights, per_query_head(p, in.v)) / (sum(weights, -1, Keep::yes) + static_cast<T>(1e-6));
  }

  Taylor(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        dim_(dim(p, o)),
        engine_(p, features(p, o), kernels::reciprocals<guard>, workspace),
        rows_(workspace.per_worker<float>(kernels::LinearAttention::max_panel * dim_)) {}

  // x W, LN, scale and shift as far as there are any, then the products.
  void map(const kernels::TokenPanel& t, const ParameterSet<float>& parameters, bool query, const Workspace& workspace) const {
    const kernels::Into own{workspace.of(t.worker, rows_).data(), dim_};
    kernels::Rows x = t.from;
    if (dim_ < p_.head_dim) {
      const auto w = parameters.view<3>(query ? "W_q" : "W_k")[t.head];
      kernels::gemm(t.count, dim_, p_.head_dim, {x.data, x.stride}, {w.data_handle(), dim_}, own);
      x = own;
    }
    if (o_.even) {
      const float* const gamma = parameters.view<3>(query ? "gamma_q" : "gamma_k")[t.head].data_handle();
      const float* const beta = parameters.view<3>(query ? "beta_q" : "beta_k")[t.head].data_handle();
      kernels::layer_norm(t.count, dim_, x, 1e-6f, own);
      kernels::scale_columns(t.count, dim_, own, gamma, own);
      for (index_t i = 0; i < t.count; ++i) kernels::add(1, dim_, {beta, dim_}, {own.data + i * dim_, dim_});
      x = own;
    }
    kernels::taylor(t.count, dim_, x, o_.even, t.to);
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
  static index_t features(const Problem& p, const Options& o) { return kernels::taylor_features(dim(p, o), o.even); }

  Problem p_;
  Options o_;
  index_t dim_;
  kernels::LinearAttention engine_;
  Booking<float> rows_;
};
ATTN_VARIANT(taylor, Taylor)

}  // namespace attn
