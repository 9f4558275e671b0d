#include <cmath>

#include "attn/kernels/rows.hpp"
#include "attn/kernels/weighted_sum.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// synth_dense_factored: the Dense Synthesizer with its L logits as products of a and c numbers, a c >= L.
//   out_i = sum_j softmax_j(A_i,j/c C_i,j%c) v_j,  h_i = relu(x_i W), A_i = h_i Wa, C_i = h_i Wc;  j <= i when causal
//   Tay et al. 2020, arXiv:2005.00743, section 3.1.4 (Factorized Dense Synthesizer); per head, W [D,D], Wa [D,a], Wc [D,c]
//   useful flops 2 N D (D + a + c) + N^2 (1 + 2 Dv) a head, N^2 parts half when causal; workspace some rows of N a worker
// The paper tiles both factors to length L, which repeats logits with a period of lcm(a, c); this is their outer product.
struct SynthDenseFactored {
  struct Options {
    index_t a = 0;
    index_t max_len = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("a", &Options::a, 0, 65536, "numbers in the first factor; 0: sqrt(L)")
        .integer("max_len", &Options::max_len, 0, unlimited, "positions with logits, of which the first N are used; 0: N");
  }

  static VariantInfo info() {
    return {.title = "Factorized Dense Synthesizer",
            .formula = "out_i = sum_j softmax_j(A_i,j/c C_i,j%c) v_j",
            .paper = "Tay et al. 2020, arXiv:2005.00743, section 3.1.4",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::different,
            .reads = Reads::xv,
            .cross = false};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const Factors f(p, o);
    const index_t h = p.heads, d = p.head_dim;
    return {{.name = "W", .shape = {h, d, d}, .init = init::xavier_uniform(d, d)},
            {.name = "Wa", .shape = {h, d, f.a}, .init = init::xavier_uniform(d, f.a)},
            {.name = "Wc", .shape = {h, d, f.c}, .init = init::xavier_uniform(d, f.c)}};
  }

  static Status supports(const Problem& p, const Options& o) { return within_learned(p, o.max_len); }

  static Cost cost(const Problem& p, const Options& o) {
    const Factors f(p, o);
    const double pairs = count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); });
    const auto heads = static_cast<double>(p.batch * p.heads), n = static_cast<double>(p.q_len);
    const auto d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.value_dim);
    const double matrices = d * (d + static_cast<double>(f.a + f.c));
    return {.flops = heads * (2 * n * matrices + pairs * (1 + 2 * dv)),
            .bytes = sizeof(float) * (heads * n * (d + 2 * dv) + static_cast<double>(p.heads) * matrices),
            .exps = heads * pairs};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options&, const Inputs<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> hidden = relu(matmul(in.x(), parameters["W"]));
    const Tensor<T> a = matmul(hidden, parameters["Wa"]), c = matmul(hidden, parameters["Wc"]);
    const Tensor<T> logits = flatten(unsqueeze(a, -1) * unsqueeze(c, -2), -2, -1);
    return matmul(softmax(slice(logits, -1, 0, p.kv_len), allowed_pairs(p, in, every_key)), in.v);
  }

  SynthDenseFactored(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : d_(p.head_dim),
        f_(p, o),
        scratch_(workspace.per_worker<float>(kernels::WeightedSum::max_rows * (p.head_dim + f_.a + f_.c))),
        engine_(p, kernels::WeightedSum::Kind::softmax, kernels::WeightedSum::Sharing::none, workspace) {}

  void run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out, Workspace& workspace) const {
    const auto w = parameters.view<3>("W"), wa = parameters.view<3>("Wa"), wc = parameters.view<3>("Wc");
    engine_.run(in.v, out, workspace, [&](const kernels::WeightBlock& block) -> kernels::Rows {
      const auto x = in.x()[block.batch][block.head];
      const index_t h = block.head, rows = block.rows;
      const kernels::Into hidden{workspace.of(block.worker, scratch_).data(), d_};
      const kernels::Into a{hidden.data + rows * d_, f_.a}, c{a.data + rows * f_.a, f_.c};
      kernels::gemm(rows, d_, d_, {x.row(block.first), x.stride(0)}, {w[h].data_handle(), d_}, hidden);
      kernels::relu_plus(rows, d_, hidden, 0, hidden);
      kernels::gemm(rows, f_.a, d_, {hidden.data, d_}, {wa[h].data_handle(), f_.a}, a);
      kernels::gemm(rows, f_.c, d_, {hidden.data, d_}, {wc[h].data_handle(), f_.c}, c);
      const index_t whole = block.keys / f_.c, rest = block.keys % f_.c;
      for (index_t i = 0; i < rows; ++i) {
        float* logits = block.to.data + i * block.to.stride;
        const float *factors = a.data + i * f_.a, *numbers = c.data + i * f_.c;
        kernels::scale_rows(whole, f_.c, {numbers, 0}, factors, {logits, f_.c});
        if (rest > 0) kernels::scale_rows(1, rest, {numbers, 0}, factors + whole, {logits + whole * f_.c, f_.c});
      }
      return block.to;
    });
  }

 private:
  struct Factors {
    index_t a, c;
    Factors(const Problem& p, const Options& o) {
      const index_t l = o.max_len == 0 ? p.q_len : o.max_len;
      a = o.a > 0 ? o.a : static_cast<index_t>(std::sqrt(static_cast<double>(l)));
      c = (l + a - 1) / a;
    }
  };

  index_t d_;
  Factors f_;
  Booking<float> scratch_;
  kernels::WeightedSum engine_;
};
ATTN_VARIANT(synth_dense_factored, SynthDenseFactored)

}  // namespace attn
