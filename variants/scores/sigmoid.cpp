#include <cmath>

#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// sigmoid: each key is weighed for itself; no sum over the row.
//   out_i = sum_j sigmoid(q_i.k_j / sqrt(D) + b) v_j,  b = -ln M;  j <= i when causal
//   Ramapuram et al. 2024, arXiv:2409.04431, section 2; without b the output grows with M
//   useful flops 2 N M (D + Dv), half when causal; workspace M D a kv head and some rows of M a worker
struct Sigmoid {
  static VariantInfo info() {
    return {.title = "Sigmoid attention",
            .formula = "out_i = sum_j sigmoid(q_i.k_j / sqrt(D) - ln M) v_j",
            .paper = "Ramapuram et al. 2024, arXiv:2409.04431, section 2",
            .cost_in_n = "N^2 D",
            .fine_print = "M is the number of all keys, also when causal.",
            .exactness = Exactness::different,
            .grouped_heads = true};
  }

  static Status supports(const Problem& p, const NoOptions&) {
    if (p.pass == Pass::decode) return refuse("weighs every pair by the length of the whole sequence, which a step does not know");
    return {};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    return softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); }));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    const Tensor<T> logits = matmul_transposed(in.q, per_query_head(p, in.k)) * static_cast<T>(p.scale()) + static_cast<T>(bias(p));
    const Tensor<T> weights = where(allowed_pairs(p, in, every_key), attn::sigmoid(logits), T{0});
    return matmul(weights, per_query_head(p, in.v));
  }

  Sigmoid(const Problem& p, const NoOptions&, WorkspacePlan& workspace)
      : p_(p),
        keys_(workspace.shared<float>(p.batch * p.kv_heads * p.head_dim * p.kv_len)),
        engine_(p, kernels::WeightedSum::Kind::weights, kernels::WeightedSum::Sharing::none, workspace) {}

  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const auto scale = static_cast<float>(p_.scale()), plus = static_cast<float>(bias(p_));
    const View<float, 4> keys(workspace.shared(keys_).data(), {p_.batch, p_.kv_heads, p_.head_dim, p_.kv_len});
    kernels::transpose_heads(a.k, keys);
    engine_.run(a.v, a.out, workspace, [&](const kernels::WeightBlock& block) -> kernels::Rows {
      const auto q = a.q[block.batch][block.head];
      kernels::gemm(block.rows, block.keys, p_.head_dim, {q.row(block.first), q.stride(0)},
                    {keys[block.batch][p_.kv_head(block.head)].data_handle(), p_.kv_len}, block.to);
      kernels::sigmoid(block.rows, block.keys, block.to, scale, plus, block.to);
      return block.to;
    });
  }

 private:
  static double bias(const Problem& p) { return -std::log(static_cast<double>(p.kv_len)); }

  Problem p_;
  Booking<float> keys_;
  kernels::WeightedSum engine_;
};
ATTN_VARIANT(sigmoid, Sigmoid)

}  // namespace attn
