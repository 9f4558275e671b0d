#include "attn/kernels/softmax/additive.hpp"

#include <vector>

#include "attn/variant/variant.hpp"

namespace attn {

// additive: a score by a layer of tanh.
//   out_i = sum_j softmax_j(v_a.tanh(q_i W + k_j U)) v_j,  W, U [D,size] and v_a [size] for each head, no 1/sqrt(D);
//   j <= i when causal
//   Bahdanau et al. 2014, arXiv:1409.0473, section 3.1 and appendix A.1.2 (there size = 1000, W and U start at N(0, 0.001^2) and
//   v_a at 0, which is uniform attention: too little for a test of anything, so Glorot's here)
//   useful flops 2 (N + M) D size + N M (3 size + 2 Dv) a head and N M size tanh, the N M parts half when causal;
//   workspace (N + M) size a head
// The fast path needs no tanh for pairs (kernels/additive.hpp).
struct Additive {
  struct Options {
    index_t size = 64;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("size", &Options::size, 1, kernels::AdditiveAttention::max_size,
                                          "units of the alignment layer");
  }

  static VariantInfo info() {
    return {.title = "Additive attention",
            .formula = "out_i = sum_j softmax_j(v.tanh(W q_i + U k_j)) v_j",
            .paper = "Bahdanau et al. 2014, arXiv:1409.0473, section 3.1 and A.1.2",
            .cost_in_n = "N^2 size",
            .exactness = Exactness::different,
            .grouped_heads = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const Init layer = init::xavier_uniform(p.head_dim, o.size);
    return {{.name = "W",
             .shape = {p.heads, p.head_dim, o.size},
             .init = layer,
             .axes = "heads, head_dim, size",
             .doc = "q_i W: rows meet q"},
            {.name = "U",
             .shape = {p.heads, p.head_dim, o.size},
             .init = layer,
             .axes = "heads, head_dim, size",
             .doc = "k_j U: rows meet k"},
            {.name = "v",
             .shape = {p.heads, o.size},
             .init = init::xavier_uniform(o.size, 1),
             .axes = "heads, size",
             .doc = "v_a, weights of the tanh"}};
  }

  // A tanh counts as an exponential.
  static Cost cost(const Problem& p, const Options& o) {
    const double pairs = count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); });
    const auto heads = static_cast<double>(p.batch * p.heads), size = static_cast<double>(o.size);
    const auto tokens = static_cast<double>(p.q_len + p.kv_len), d = static_cast<double>(p.head_dim);
    return {.flops = heads * (2 * tokens * d * size + pairs * (3 * size + 2 * static_cast<double>(p.value_dim))),
            .bytes = tensor_bytes(p) + sizeof(float) * static_cast<double>(p.heads) * size * (2 * d + 1),
            .exps = heads * pairs * (size + 1)};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options&, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> queries = matmul(in.q, parameters["W"]), keys = matmul(per_query_head(p, in.k), parameters["U"]);
    const Tensor<T> weights = unsqueeze(parameters["v"], -1);  // [H,size,1]
    std::vector<Tensor<T>> logits;                             // a row of pairs at a time: [B,H,M,size] is enough memory
    for (index_t row = 0; row < in.q.extent(2); ++row)
      logits.push_back(matmul(tanh(slice(queries, 2, row, row + 1) + keys), weights));
    return matmul(softmax(transpose(concat(logits, -1)), allowed_pairs(p, in, every_key)), per_query_head(p, in.v));
  }

  Additive(const Problem& p, const Options& o, WorkspacePlan& workspace) : engine_(p, o.size, workspace) {}

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    engine_.run({a, parameters.view<3>("W"), parameters.view<3>("U"), parameters.view<2>("v")}, workspace);
  }

 private:
  kernels::AdditiveAttention engine_;
};
ATTN_VARIANT(additive, Additive)

}  // namespace attn
