#include <cmath>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// softmax1: softmax with one more key, whose logit is 0 and whose value is 0: a query may attend to nothing.
//   out_i = sum_j e^(x_ij) v_j / (1 + sum_j e^(x_ij)),  x_ij = q_i.k_j / sqrt(D);  j <= i when causal
//   Miller 2023, "Attention Is Off By One" (blog)
//   useful flops 2 N M (D + Dv), half when causal; the softmax engine's workspace and N numbers a head
// Softmax times sigmoid(ln sum_j e^(x_ij)), which the engine knows.
struct Softmax1 {
  using Engine = kernels::Attention;

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
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    const Tensor<T> logits = matmul_transposed(in.q, per_query_head(p, in.k)) * static_cast<T>(p.scale());
    const auto with_zero = [](const Tensor<T>& x, index_t axis) { return pad(x, axis, 0, 1); };
    const Mask allowed = mask({static_cast<index_t>(in.position.size()), p.kv_len + 1}, [&](index_t row, index_t j) {
      return j == p.kv_len || !p.causal || j <= in.position[static_cast<std::size_t>(row)];
    });
    return matmul(softmax(with_zero(logits, -1), allowed), with_zero(per_query_head(p, in.v), 2));
  }

  Softmax1(const Problem& p, const NoOptions&, WorkspacePlan& workspace)
      : p_(p), lse_(workspace.shared<float>(p.batch * p.heads * p.q_len)), engine_(p, {}, workspace) {}

  // The zero key makes lse' = ln(1 + e^lse) of each row's lse, and the output e^(lse - lse') of the softmax.
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const View<float, 3> lse = lse_in(workspace);
    const View<float, 4> out = a.out.f32_out();
    engine_.run({a, lse}, workspace, kernels::all_keys);
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t b = task / p_.heads, h = task % p_.heads;
      for (index_t i = 0; i < p_.q_len; ++i) {
        const float without = lse(b, h, i), factor = 1 / (1 + std::exp(-without));
        const kernels::Into row{out[b][h].row(i), p_.value_dim};
        kernels::scale_rows(1, p_.value_dim, row, &factor, row);
        lse(b, h, i) = std::max(without, 0.0f) + std::log1p(std::exp(-std::abs(without)));
      }
    });
  }
  // Weights e^(x - lse') and values, the zero key's being 0: softmax's own gradient.
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    engine_.backward({a, lse_in(workspace)}, {a, g}, workspace, kernels::all_keys);
  }

 private:
  View<float, 3> lse_in(const Workspace& workspace) const {
    return {workspace.shared(lse_).data(), {p_.batch, p_.heads, p_.q_len}};
  }

  Problem p_;
  Booking<float> lse_;
  Engine engine_;
};
ATTN_VARIANT(softmax1, Softmax1)

}  // namespace attn
