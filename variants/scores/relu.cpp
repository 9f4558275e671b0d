#include <array>
#include <cmath>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// relu: softmax replaced by max(x, 0), divided by a power of the number of keys that the query sees.
//   out_i = |A(i)|^-alpha sum_{j in A(i)} max(q_i.k_j / sqrt(D), 0) v_j,  A(i): j <= i when causal, else every key
//   Wortsman et al. 2023, arXiv:2309.08586, section 3 (bidirectional, alpha = 1; |A(i)| for causal problems is our choice)
//   useful flops 2 N M (D + Dv), half when causal, no exps; workspace M D a kv head and some rows of M a worker
struct Relu {
  struct Options {
    double alpha = 1;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().number("alpha", &Options::alpha, 0, 2, "power of the number of keys that divides");
  }

  static VariantInfo info() {
    return {.title = "ReLU attention",
            .formula = "out_i = sum_j max(q_i.k_j / sqrt(D), 0) v_j / M^alpha",
            .paper = "Wortsman et al. 2023, arXiv:2309.08586, section 3",
            .cost_in_n = "N^2 D",
            .fine_print = "M is the number of keys that the query sees, so i + 1 in causal self-attention.",
            .exactness = Exactness::different,
            .grouped_heads = true};
  }

  static Cost cost(const Problem& p, const Options&) {
    Cost c = softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); }));
    c.exps = 0;
    return c;
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const Tensor<T> products = attn::relu(matmul_transposed(in.q, per_query_head(p, in.k)));
    const Tensor<T> weights = where(allowed_pairs(p, in, every_key), products, T{0});
    const Tensor<T> factors = tabulate<T>({static_cast<index_t>(in.position.size()), 1}, [&](index_t row, index_t) {
      return factor(p, o, in.position[static_cast<std::size_t>(row)]);
    });
    return matmul(weights * factors, per_query_head(p, in.v));
  }

  Relu(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        keys_(workspace.shared<float>(p.batch * p.kv_heads * p.head_dim * p.kv_len)),
        engine_(p, kernels::WeightedSum::Kind::weights, kernels::WeightedSum::Sharing::none, workspace) {}

  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const View<float, 4> keys(workspace.shared(keys_).data(), {p_.batch, p_.kv_heads, p_.head_dim, p_.kv_len});
    kernels::transpose_heads(a.k, keys);
    engine_.run(a.v, a.out, workspace, [&](const kernels::WeightBlock& block) -> kernels::Rows {
      const auto q = a.q[block.batch][block.head];
      kernels::gemm(block.rows, block.keys, p_.head_dim, {q.row(block.first), q.stride(0)},
                    {keys[block.batch][p_.kv_head(block.head)].data_handle(), p_.kv_len}, block.to);
      std::array<float, kernels::WeightedSum::max_rows> factors;
      for (index_t i = 0; i < block.rows; ++i)
        factors[static_cast<std::size_t>(i)] = static_cast<float>(factor(p_, o_, block.position + i));
      kernels::relu(block.rows, block.keys, block.to, factors.data(), block.to);
      return block.to;
    });
  }

 private:
  static double factor(const Problem& p, const Options& o, index_t position) {
    const auto keys = static_cast<double>(visible_keys(p, position, 0, p.kv_len - 1));
    return keys > 0 ? p.scale() * std::pow(keys, -o.alpha) : 0;
  }

  Problem p_;
  Options o_;
  Booking<float> keys_;
  kernels::WeightedSum engine_;
};
ATTN_VARIANT(relu, Relu)

}  // namespace attn
