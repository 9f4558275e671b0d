#include "attn/variant/edges.hpp"

namespace attn {

// graph: softmax attention along the edges of a graph; tokens are its nodes.
//   out_i = sum_{j in N(i)} softmax_j(q_i.k_j / sqrt(D)) v_j, N(i) the neighbours of node i; a node without any gets zeros
//   Dwivedi and Bresson 2020, arXiv:2012.09699, without edge features and clamp: masked multi-head attention with the mask as lists
//   useful flops 2 edges (D + Dv) a head, edges = N degree at most; workspace a list a worker. What binds is the gather of rows.
struct Graph : EdgePage<kernels::Loops::given> {
  static VariantInfo info() {
    return {.title = "Graph attention, scaled dot product",
            .formula = "out_i = sum_{j in N(i)} softmax_j(q_i.k_j/sqrt(D)) v_j",
            .paper = "Dwivedi and Bresson 2020, arXiv:2012.09699",
            .cost_in_n = "N degree D",
            .fine_print =
                "Reads array neighbours [B,1,N,degree]; without one, as of --input graph:, neighbours are drawn from all nodes.",
            .exactness = Exactness::pattern,
            .cross = false,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const Options& o) { return edge_cost(p, o); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const Indices near = neighbours_of(p, o, in);
    const Tensor<T> scores = sum(unsqueeze(in.q, 3) * of_neighbours(p, o, in.k, near), -1) * static_cast<T>(p.scale());
    return edge_attention(p, o, in, scores, near);
  }

  Graph(const Problem& p, const Options& o, WorkspacePlan& workspace) : p_(p), engine_(p, o.degree, o.rules(), workspace) {}

  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    engine_.run({a, a.more["neighbours"].f32<4>()}, workspace,
                [this](const kernels::EdgeScores& e) { kernels::edge_dots(e, p_.head_dim, static_cast<float>(p_.scale())); });
  }

 private:
  Problem p_;
  kernels::EdgeAttention engine_;
};
ATTN_VARIANT(graph, Graph)

}  // namespace attn
