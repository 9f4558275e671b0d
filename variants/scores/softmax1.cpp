#include <cmath>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// softmax1: softmax with one more key, whose value is 0: a query may attend to nothing.
//   out_i = sum_j e^(x_ij) v_j / (e^z + sum_j e^(x_ij)),  x_ij = q_i.k_j / sqrt(D);  j <= i when causal
//   sink=zero: z = 0, Miller 2023, "Attention Is Off By One" (blog);  sink=learned: a z for each head, as in gpt-oss
//   useful flops 2 N M (D + Dv), half when causal; the softmax engine's workspace and N numbers a head
// Softmax times sigmoid(ln sum_j e^(x_ij) - z), which the engine knows.
struct Softmax1 {
  using Engine = kernels::Attention;
  struct Options {
    bool learned = false;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().choice("sink", &Options::learned, {{"zero", false}, {"learned", true}},
                                         "logit of the key without a value: zero, or learned for each head");
  }

  static VariantInfo info() {
    return {.title = "Softmax with a zero key",
            .formula = "out_i = sum_j e^(q_i.k_j / sqrt(D)) v_j / (e^z + sum_j e^(q_i.k_j / sqrt(D))), z = 0",
            .paper = "Miller 2023, Attention Is Off By One (blog)",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::approximation,
            .grouped_heads = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    if (!o.learned) return {};
    return {{.name = "sink",
             .shape = {p.heads},
             .init = init::normal(0.02),
             .axes = "heads",
             .doc = "z: the logit of the key without a value"}};
  }

  static Cost cost(const Problem& p, const Options&) {
    return softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); }));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> logits = matmul_transposed(in.q, per_query_head(p, in.k)) * static_cast<T>(p.scale());
    const Tensor<T> z = o.learned ? reshape(parameters["sink"], {p.heads, 1, 1}) : Tensor<T>(0);
    const Tensor<T> sink = broadcast_to(z, {p.batch, p.heads, in.q.extent(2), 1});
    const Mask allowed = mask({static_cast<index_t>(in.position.size()), p.kv_len + 1}, [&](index_t row, index_t j) {
      return j == p.kv_len || !p.causal || j <= in.position[static_cast<std::size_t>(row)];
    });
    return matmul(softmax(concat<T>({logits, sink}, -1), allowed), pad(per_query_head(p, in.v), 2, 0, 1));
  }

  Softmax1(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), o_(o), lse_(workspace.shared<float>(p.batch * p.heads * p.q_len)), engine_(p, {}, workspace) {}

  // The sink makes lse' = ln(e^z + e^lse) of each row's lse, and the output e^(lse - lse') of the softmax.
  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const View<float, 3> lse = lse_in(workspace);
    const View<float, 4> out = a.out.f32_out();
    engine_.run({a, lse}, workspace, kernels::all_keys);
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t b = task / p_.heads, h = task % p_.heads;
      const float z = sink(parameters, h);
      for (index_t i = 0; i < p_.q_len; ++i) {
        const float without = lse(b, h, i), factor = 1 / (1 + std::exp(z - without));
        const kernels::Into row{out[b][h].row(i), p_.value_dim};
        kernels::scale_rows(1, p_.value_dim, row, &factor, row);
        lse(b, h, i) = std::max(without, z) + std::log1p(std::exp(-std::abs(without - z)));
      }
    });
  }
  // Weights e^(x - lse') and values, the sink's being 0: softmax's own gradient. That of z is -e^(z - lse') dO.O, summed over the rows.
  void backward(const Arrays& a, const ParameterSet<float>& parameters, const Gradients& g, Workspace& workspace) const {
    engine_.backward({a, lse_in(workspace)}, {a, g}, workspace, kernels::all_keys);
    if (!o_.learned) return;
    const View<const float, 4> out = a.out.f32(), d_out = g.d_out.f32();
    const View<float, 1> d_sink = g.d_parameters.view<1>("sink");
    parallel_tasks(p_.heads, [&](index_t h, int) {
      double sum = 0;
      for (index_t row = 0; row < p_.batch * p_.q_len; ++row) {
        const index_t b = row / p_.q_len, i = row % p_.q_len;
        float dot;
        kernels::row_dots(1, p_.value_dim, {d_out[b][h].row(i), p_.value_dim}, out[b][h].row(i), &dot);
        sum -= std::exp(static_cast<double>(sink(parameters, h) - lse_in(workspace)(b, h, i))) * static_cast<double>(dot);
      }
      d_sink(h) = static_cast<float>(sum);
    });
  }

 private:
  float sink(const ParameterSet<float>& parameters, index_t head) const { return o_.learned ? parameters["sink"].data()[head] : 0; }
  View<float, 3> lse_in(const Workspace& workspace) const {
    return {workspace.shared(lse_).data(), {p_.batch, p_.heads, p_.q_len}};
  }

  Problem p_;
  Options o_;
  Booking<float> lse_;
  Engine engine_;
};
ATTN_VARIANT(softmax1, Softmax1)

}  // namespace attn
