#include <algorithm>

#include "attn/kernels/dense/rows.hpp"
#include "attn/variant/edges.hpp"

namespace attn {

// gat: graph attention whose score is a sum of one number of the query and one of the key.
//   out_i = sum_{j in N(i)} softmax_j(leaky(a.q_i + b.k_j)) v_j, leaky(x) = max(x, 0.2 x), a and b [H,D] learned, no 1/sqrt(D)
//   Velickovic et al. 2017, arXiv:1710.10903, equation 3; q, k and v are all W h there
//   useful flops 4 N D + 2 edges Dv a head: no product for an edge; workspace a number for each node and head and a list a worker
struct Gat : EdgePage<kernels::Loops::added> {
  static VariantInfo info() {
    return {.title = "Graph attention network",
            .formula = "out_i = sum_{j in N(i)} softmax_j(leaky(a.q_i + b.k_j)) v_j",
            .paper = "Velickovic et al. 2017, arXiv:1710.10903, equation 3",
            .cost_in_n = "N degree D",
            .fine_print = "Reads array neighbours [B,1,N,degree]; every node is its own neighbour unless loops says else.",
            .exactness = Exactness::different,
            .cross = false,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options&) {
    const Init init = init::xavier_uniform(p.head_dim, 1);
    return {{.name = "a", .shape = {p.heads, p.head_dim}, .init = init, .axes = "heads, head_dim", .doc = "weighs q_i"},
            {.name = "b", .shape = {p.heads, p.head_dim}, .init = init, .axes = "heads, head_dim", .doc = "weighs k_j"}};
  }
  static Cost cost(const Problem& p, const Options& o) {
    Cost cost = edge_cost(p, o);
    const auto tokens = static_cast<double>(p.batch * p.heads * (p.q_len + p.kv_len));
    cost.flops = 2 * cost.exps * static_cast<double>(p.value_dim) + 2 * tokens * static_cast<double>(p.head_dim);
    cost.bytes += 2 * sizeof(float) * static_cast<double>(p.heads * p.head_dim);
    return cost;
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Indices near = neighbours_of(p, o, in);
    const Tensor<T> of_query = sum(in.q * unsqueeze(parameters["a"], 1), -1, Keep::yes);  // [B,H,rows,1]
    const Tensor<T> keys = of_neighbours(p, o, in.k, near);
    const Tensor<T> of_key = sum(keys * reshape(parameters["b"], {1, p.heads, 1, 1, p.head_dim}), -1);  // [B,H,rows,most]
    const Tensor<T> both = of_query + of_key;
    return edge_attention(p, o, in, leaky(both), near);
  }

  Gat(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), engine_(p, o.degree, o.rules(), workspace, false), keys_(workspace.shared<float>(p.batch * p.heads * p.kv_len)) {}

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const View<const float, 4> k = a.k.f32();
    float* const keys = workspace.shared(keys_).data();
    const auto key_of = [&](index_t b, index_t head) { return keys + (b * p_.heads + head) * p_.kv_len; };
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t b = task / p_.heads, head = task % p_.heads;
      const auto rows = k[b][p_.kv_head(head)];
      kernels::row_dots(p_.kv_len, p_.head_dim, {rows.data_handle(), rows.stride(0)}, parameters.view<2>("b").row(head),
                        key_of(b, head));
    });
    engine_.run({a, a.more["neighbours"].f32<4>()}, workspace, [&](const kernels::EdgeScores& e) {
      float of_query;
      kernels::row_dots(1, p_.head_dim, {e.q, p_.head_dim}, parameters.view<2>("a").row(e.head), &of_query);
      const float* const of_key = key_of(e.batch, e.head);
      for (std::size_t i = 0; i < e.node.size(); ++i) {
        const float x = of_query + of_key[e.node[i]];
        e.to[i] = std::max(x, slope * x);
      }
    });
  }

 private:
  Problem p_;
  kernels::EdgeAttention engine_;
  Booking<float> keys_;
};
ATTN_VARIANT(gat, Gat)

}  // namespace attn
