#include <cmath>

#include "attn/kernels/engine.hpp"
#include "attn/kernels/rows.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// softmax1: softmax with one more key, whose logit is 0 and whose value is 0: a query may attend to nothing.
//   out_i = sum_j e^(x_ij) v_j / (1 + sum_j e^(x_ij)),  x_ij = q_i.k_j / sqrt(D);  j <= i when causal
//   Miller 2023, "Attention Is Off By One" (blog)
//   useful flops 2 N M (D + Dv), half when causal; the softmax engine's workspace and N numbers a head
// Softmax times sigmoid(ln sum_j e^(x_ij)), which the engine knows.
struct Softmax1 {
  static VariantInfo info() {
    return {.title = "Softmax with a zero key",
            .formula = "out_i = sum_j e^(q_i.k_j / sqrt(D)) v_j / (1 + sum_j e^(q_i.k_j / sqrt(D)))",
            .paper = "Miller 2023, Attention Is Off By One (blog)",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::approximation,
            .grouped_heads = true};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    return softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); }));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Inputs<T>& in, const ParameterSet<T>&) {
    const Tensor<T> logits = matmul_transposed(in.q, per_query_head(p, in.k)) * static_cast<T>(p.scale());
    const auto with_zero = [](const Tensor<T>& x, index_t axis) { return pad(x, axis, 0, 1); };
    const Mask allowed = mask({static_cast<index_t>(in.position.size()), p.kv_len + 1}, [&](index_t row, index_t j) {
      return j == p.kv_len || !p.causal || j <= in.position[static_cast<std::size_t>(row)];
    });
    return matmul(softmax(with_zero(logits, -1), allowed), with_zero(per_query_head(p, in.v), 2));
  }

  Softmax1(const Problem& p, const NoOptions&, WorkspacePlan& workspace)
      : p_(p), lse_(workspace.shared<float>(p.batch * p.heads * p.q_len)), engine_(p, {}, workspace) {}

  void run(const FloatInputs& in, const ParameterSet<float>&, Output out, Workspace& workspace) const {
    const View<float, 3> lse(workspace.shared(lse_).data(), {p_.batch, p_.heads, p_.q_len});
    engine_.run({in.q, in.k, in.v, out, lse}, workspace, [](const kernels::QueryBlock&, kernels::KeyList& keys) { keys.all(); });
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t b = task / p_.heads, h = task % p_.heads;
      float* factor = lse[b].row(h);
      for (index_t i = 0; i < p_.q_len; ++i) factor[i] = 1 / (1 + std::exp(-factor[i]));
      const kernels::Into rows{out[b][h].data_handle(), out[b][h].stride(0)};
      kernels::scale_rows(p_.q_len, p_.value_dim, rows, factor, rows);
    });
  }

 private:
  Problem p_;
  Booking<float> lse_;
  kernels::SoftmaxEngine engine_;
};
ATTN_VARIANT(softmax1, Softmax1)

}  // namespace attn
