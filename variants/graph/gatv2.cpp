#include "attn/variant/edges.hpp"

namespace attn {

// gatv2: graph attention whose score is a layer on the sum of query and key, so that the order of neighbours depends on the query.
//   out_i = sum_{j in N(i)} softmax_j(a.leaky(q_i + k_j)) v_j, leaky(x) = max(x, 0.2 x), a [H,D] learned, no 1/sqrt(D)
//   Brody et al. 2021, arXiv:2105.14491, equation 7; q, k and v are what its layer makes of a node: W_l h_i, W_r h_j and W_r h_j
//   useful flops edges (4 D + 2 Dv) a head; workspace a list a worker
struct Gatv2 : EdgePage<kernels::Loops::added> {
  static VariantInfo info() {
    return {.title = "Graph attention network, second form",
            .formula = "out_i = sum_{j in N(i)} softmax_j(a.leaky(q_i + k_j)) v_j",
            .paper = "Brody et al. 2021, arXiv:2105.14491, equation 7",
            .cost_in_n = "N degree D",
            .fine_print = "Reads array neighbours [B,1,N,degree]; every node is its own neighbour unless loops says else.",
            .exactness = Exactness::different,
            .cross = false,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options&) {
    return {{.name = "a",
             .shape = {p.heads, p.head_dim},
             .init = init::xavier_uniform(p.head_dim, 1),
             .axes = "heads, head_dim",
             .doc = "weights of leaky(q_i + k_j)"}};
  }
  static Cost cost(const Problem& p, const Options& o) {
    Cost cost = edge_cost(p, o);
    cost.flops = cost.exps * static_cast<double>(4 * p.head_dim + 2 * p.value_dim);
    cost.bytes += sizeof(float) * static_cast<double>(p.heads * p.head_dim);
    return cost;
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Indices near = neighbours_of(p, o, in);
    const Tensor<T> both = unsqueeze(in.q, 3) + of_neighbours(p, o, in.k, near);
    return edge_attention(p, o, in, sum(leaky(both) * reshape(parameters["a"], {1, p.heads, 1, 1, p.head_dim}), -1), near);
  }

  Gatv2(const Problem& p, const Options& o, WorkspacePlan& workspace) : p_(p), engine_(p, o.degree, o.rules(), workspace) {}

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const View<const float, 2> weights = parameters.view<2>("a");
    engine_.run({a, a.more["neighbours"].f32<4>()}, workspace,
                [&](const kernels::EdgeScores& e) { kernels::edge_leaky_dots(e, p_.head_dim, weights.row(e.head), slope); });
  }

 private:
  Problem p_;
  kernels::EdgeAttention engine_;
};
ATTN_VARIANT(gatv2, Gatv2)

}  // namespace attn
