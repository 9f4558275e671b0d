#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// inducing: m learned queries sum up the keys, and the queries read from the m summaries.
//   H = softmax(I K^T / sqrt(D)) V,  out = softmax(Q (H W_k)^T / sqrt(D)) (H W_v),  I [m, D] for each head
//   Lee et al. 2019, arXiv:1810.00825, section 3.1: the two attentions of ISAB; its residuals and feed-forward are the layer's
//   useful flops 2 m (M + N) (D + Dv), m (M + N) exps; workspace m (D + 2 Dv) a head
//   Permuting the keys changes nothing. Every summary holds all positions, so no causal form exists.
struct Inducing {
  struct Options {
    index_t m = 32;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("m", &Options::m, 1, 65536, "inducing points").budget();
  }

  static VariantInfo info() {
    return {.title = "Inducing points (Set Transformer)",
            .formula = "H = softmax(I K^T / sqrt(D)) V, out = softmax(Q (H W_k)^T / sqrt(D)) (H W_v)",
            .paper = "Lee et al. 2019, arXiv:1810.00825, section 3.1",
            .cost_in_n = "N m D",
            .exactness = Exactness::fitted,
            .causality = Causality::never,
            .grouped_heads = true,
            .time_exponent = 1,
            .acausal = "inducing points attend to all keys before a query sees them"};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t d = p.head_dim, dv = p.value_dim;
    return {{.name = "I",
             .shape = {p.heads, o.m, d},
             .init = init::xavier_uniform(o.m, d),
             .axes = "heads, m, head_dim",
             .doc = "the inducing points, as queries"},
            {.name = "W_k",
             .shape = {p.heads, dv, d},
             .init = init::xavier_uniform(dv, d),
             .axes = "heads, value_dim, head_dim",
             .doc = "H W_k: rows meet H"},
            {.name = "W_v",
             .shape = {p.heads, dv, dv},
             .init = init::xavier_uniform(dv, dv),
             .axes = "heads, value_dim, value_dim",
             .doc = "H W_v: rows meet H"}};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto heads = static_cast<double>(p.batch * p.heads), m = static_cast<double>(o.m);
    const auto d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.value_dim);
    const double pairs = heads * m * static_cast<double>(p.q_len + p.kv_len);
    return {.flops = 2 * pairs * (d + dv) + 2 * heads * m * dv * (d + dv), .bytes = tensor_bytes(p), .exps = pairs};
  }

  // What the inducing points gathered, as keys and values.
  static StateSpec state(const Problem& p, const Options& o) { return kept_keys(p, o.m); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options&, const Values<T>& in, const ParameterSet<T>& parameters) {
    const auto attend = [&](const Tensor<T>& q, const Tensor<T>& k, const Tensor<T>& v) {
      return matmul(softmax(matmul_transposed(q, k) * static_cast<T>(p.scale())), v);
    };
    const Tensor<T> h = attend(parameters["I"], per_query_head(p, in.k), per_query_head(p, in.v));
    return attend(in.q, matmul(h, parameters["W_k"]), matmul(h, parameters["W_v"]));
  }

  Inducing(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        m_(o.m),
        h_(workspace.shared<float>(p.batch * p.heads * o.m * p.value_dim)),
        k_(workspace.shared<float>(p.batch * p.heads * o.m * p.head_dim)),
        v_(workspace.shared<float>(p.batch * p.heads * o.m * p.value_dim)),
        gather_(gathering(p, o), {}, workspace),
        spread_(spreading(p, o), {}, workspace) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const auto view = [&](const Booking<float>& b, index_t d) {
      return View<float, 4>(workspace.shared(b).data(), {p_.batch, p_.heads, m_, d});
    };
    const auto h = view(h_, p_.value_dim), k = view(k_, p_.head_dim), v = view(v_, p_.value_dim);
    const auto all = [](const kernels::QueryBlock&, kernels::KeyList& keys) { keys.all(); };
    const View<const float, 4> points(parameters["I"].data(), {p_.batch, p_.heads, m_, p_.head_dim},
                                      {0, m_ * p_.head_dim, p_.head_dim, 1});
    gather_.run({points, a.k, a.v, h}, workspace, all);
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t batch = task / p_.heads, head = task % p_.heads;
      const auto multiply = [&](const char* weights, const View<float, 2>& to) {
        const index_t d = to.extent(1);
        kernels::gemm(m_, d, p_.value_dim, {h[batch][head].row(0), p_.value_dim},
                      {parameters[weights].data() + head * p_.value_dim * d, d}, {to.row(0), d});
      };
      multiply("W_k", k[batch][head]);
      multiply("W_v", v[batch][head]);
    });
    spread_.run({a.q, k, v, a.out}, workspace, all);
  }

 private:
  static Problem gathering(Problem p, const Options& o) {
    p.q_len = o.m;
    return p;
  }
  static Problem spreading(Problem p, const Options& o) {
    p.kv_len = o.m;
    p.kv_heads = p.heads;
    return p;
  }

  Problem p_;
  index_t m_;
  Booking<float> h_, k_, v_;
  kernels::SoftmaxEngine gather_, spread_;
};
ATTN_VARIANT(inducing, Inducing)

}  // namespace attn
