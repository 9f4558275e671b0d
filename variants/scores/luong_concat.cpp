#include <vector>

#include "attn/kernels/softmax/additive.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// luong_concat: a score by a layer of tanh on query and key side by side.
//   out_i = sum_j softmax_j(v_a.tanh([q_i k_j] W)) v_j,  W [2D,size] and v_a [size] for each head, no 1/sqrt(D);
//   j <= i when causal
//   Luong et al. 2015, arXiv:1508.04025, section 3.1 (concat): additive attention whose two matrices are halves of one
//   useful flops 2 (N + M) D size + N M (3 size + 2 Dv) a head and N M size tanh, the N M parts half when causal;
//   workspace (N + M) size a head
// The fast path needs no tanh for pairs (kernels/additive.hpp).
struct LuongConcat {
  struct Options {
    index_t size = 64;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("size", &Options::size, 1, kernels::AdditiveAttention::max_size, "units of the layer");
  }

  static VariantInfo info() {
    return {.title = "Luong attention, concat score",
            .formula = "out_i = sum_j softmax_j(v.tanh(W [q_i; k_j])) v_j",
            .paper = "Luong et al. 2015, arXiv:1508.04025, section 3.1",
            .cost_in_n = "N^2 size",
            .exactness = Exactness::different,
            .grouped_heads = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    return {{.name = "W",
             .shape = {p.heads, 2 * p.head_dim, o.size},
             .init = init::xavier_uniform(2 * p.head_dim, o.size),
             .axes = "heads, 2 head_dim, size",
             .doc = "[q_i k_j] W: the first head_dim rows meet q"},
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
    const std::vector<Tensor<T>> w = split_at(parameters["W"], 1, {p.head_dim, p.head_dim});
    const Tensor<T> queries = matmul(in.q, w[0]), keys = matmul(per_query_head(p, in.k), w[1]);
    const Tensor<T> weights = unsqueeze(parameters["v"], -1);  // [H,size,1]
    std::vector<Tensor<T>> logits;                             // a row of pairs at a time: [B,H,M,size] is enough memory
    for (index_t row = 0; row < in.q.extent(2); ++row)
      logits.push_back(matmul(tanh(slice(queries, 2, row, row + 1) + keys), weights));
    return matmul(softmax(transpose(concat(logits, -1)), allowed_pairs(p, in, every_key)), per_query_head(p, in.v));
  }

  LuongConcat(const Problem& p, const Options& o, WorkspacePlan& workspace) : d_(p.head_dim), engine_(p, o.size, workspace) {}

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const auto w = parameters.view<3>("W");
    const auto half = [&](index_t first) {
      return View<const float, 3>(w[0].row(first), {w.extent(0), d_, w.extent(2)}, w.strides());
    };
    engine_.run({a, half(0), half(d_), parameters.view<2>("v")}, workspace);
  }

 private:
  index_t d_;
  kernels::AdditiveAttention engine_;
};
ATTN_VARIANT(luong_concat, LuongConcat)

}  // namespace attn
