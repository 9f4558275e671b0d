#include <algorithm>
#include <cmath>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"
#include "attn/variant/backward_cost.hpp"
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
            .fine_print = "j/c is rounded down, j%c the rest. a=0 is the root of L, rounded down; c is L / a, rounded up.",
            .exactness = Exactness::different,
            .reads = Reads::xv,
            .cross = false,
            .grouped_heads = true,
            .last_rows = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const Factors f(p, o);
    const index_t h = p.heads, d = p.head_dim;
    return {{.name = "W",
             .shape = {h, d, d},
             .init = init::xavier_uniform(d, d),
             .axes = "heads, head_dim, head_dim",
             .doc = "x_i W: rows meet x"},
            {.name = "Wa",
             .shape = {h, d, f.a},
             .init = init::xavier_uniform(d, f.a),
             .axes = "heads, head_dim, a",
             .doc = "h_i Wa makes A_i"},
            {.name = "Wc",
             .shape = {h, d, f.c},
             .init = init::xavier_uniform(d, f.c),
             .axes = "heads, head_dim, c",
             .doc = "h_i Wc makes C_i, c = L / a, rounded up"}};
  }

  static Status supports(const Problem& p, const Options& o) { return within_learned(p, o.max_len); }
  static Status supports_backward(const Problem& p, const Options&) { return ungrouped(p); }

  static Cost cost(const Problem& p, const Options& o) {
    const Factors f(p, o);
    const double pairs = count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); });
    const auto heads = static_cast<double>(p.batch * p.heads), n = static_cast<double>(p.q_len);
    const auto d = static_cast<double>(p.head_dim), dv = static_cast<double>(p.value_dim);
    const double matrices = d * (d + static_cast<double>(f.a + f.c));
    return {.flops = heads * (2 * n * matrices + pairs * (1 + 2 * dv)),
            .bytes = q_bytes(p) + v_bytes(p) + out_bytes(p) + sizeof(float) * static_cast<double>(p.heads) * matrices,
            .exps = heads * pairs};
  }

  static Cost backward_cost(const Problem& p, const Options& o) {
    const Cost forward = cost(p, o);
    return remade_logits_backward_cost(forward, 2 * forward.exps * static_cast<double>(p.value_dim));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options&, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> hidden = relu(matmul(in.x(), parameters["W"]));
    const Tensor<T> a = matmul(hidden, parameters["Wa"]), c = matmul(hidden, parameters["Wc"]);
    const Tensor<T> logits = flatten(unsqueeze(a, -1) * unsqueeze(c, -2), -2, -1);
    return matmul(softmax(slice(logits, -1, 0, p.kv_len), allowed_pairs(p, in, every_key)), per_query_head(p, in.v));
  }

  SynthDenseFactored(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : d_(p.head_dim),
        f_(p, o),
        scratch_(workspace.per_worker<float>(scratch_floats())),
        engine_(p, kernels::WeightedSum::Kind::softmax, kernels::WeightedSum::Sharing::none, workspace) {
    if (!workspace.training()) return;
    gradients_ = workspace.per_worker<float>(scratch_floats());
    transposed_ = workspace.shared<float>(p.heads * d_ * (d_ + f_.a + f_.c));
  }

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    engine_.run(a.v, a.out, workspace, [&](const kernels::WeightBlock& block) { return logits(a, parameters, block, workspace); });
  }

  // Each key's gradient goes to the factors it was made of, A_i,j/c and C_i,j%c; theirs through the layers to x.
  void backward(const FloatArrays& a, const ParameterSet<float>& parameters, const FloatGradients& g, Workspace& workspace) const {
    const auto w = parameters.view<3>("W"), wa = parameters.view<3>("Wa"), wc = parameters.view<3>("Wc");
    const auto d_w = g.d_parameters.view<3>("W"), d_wa = g.d_parameters.view<3>("Wa"), d_wc = g.d_parameters.view<3>("Wc");
    const auto transposed = [&](index_t h) {
      return Layers(workspace.shared(transposed_).data() + h * d_ * (d_ + f_.a + f_.c), d_, d_, f_);
    };
    parallel_tasks(w.extent(0), [&](index_t h, int) {
      const Layers to = transposed(h);
      kernels::transpose(d_, d_, {w[h].row(0), d_}, to.hidden);
      kernels::transpose(d_, f_.a, {wa[h].row(0), f_.a}, {to.a.data, d_});
      kernels::transpose(d_, f_.c, {wc[h].row(0), f_.c}, {to.c.data, d_});
      for (const auto& gradient : {d_w, d_wa, d_wc}) std::fill_n(gradient[h].row(0), d_ * gradient.extent(2), 0.0f);
    });
    kernels::clear_heads(g.d_k);
    const auto weights = [&](const kernels::WeightBlock& block) { return logits(a, parameters, block, workspace); };
    engine_.backward(a.v, g.d_out, g.d_v, workspace, weights, [&](const kernels::WeightBlock& block, kernels::Rows d_logits) {
      const index_t h = block.head, rows = block.rows, whole = block.keys / f_.c, rest = block.keys % f_.c;
      const auto x = a.x()[block.batch][h];
      const auto d_x = g.d_q[block.batch][h];
      const Layers made(workspace.of(block.worker, scratch_).data(), rows, d_, f_), back = transposed(h);
      const Layers d(workspace.of(block.worker, gradients_).data(), rows, d_, f_);
      std::fill_n(d.a.data, rows * (f_.a + f_.c), 0.0f);
      for (index_t i = 0; i < rows; ++i) {
        const float* row = d_logits.data + i * d_logits.stride;
        const float *factors = made.a.data + i * f_.a, *numbers = made.c.data + i * f_.c;
        float* d_factors = d.a.data + i * f_.a;
        const kernels::Into d_numbers{d.c.data + i * f_.c, f_.c};
        kernels::row_dots(whole, f_.c, {row, f_.c}, numbers, d_factors);
        kernels::gemm(1, f_.c, whole, {factors, whole}, {row, f_.c}, d_numbers, {.add = true});
        if (rest == 0) continue;
        kernels::row_dots(1, rest, {row + whole * f_.c, f_.c}, numbers, d_factors + whole);
        kernels::add(1, rest, {row + whole * f_.c, f_.c}, d_numbers, factors[whole]);
      }
      kernels::gemm(d_, f_.a, rows, {made.hidden.data, 1, d_}, d.a, {d_wa[h].row(0), f_.a}, {.add = true});
      kernels::gemm(d_, f_.c, rows, {made.hidden.data, 1, d_}, d.c, {d_wc[h].row(0), f_.c}, {.add = true});
      kernels::gemm(rows, d_, f_.a, {d.a.data, f_.a}, {back.a.data, d_}, d.hidden);
      kernels::gemm(rows, d_, f_.c, {d.c.data, f_.c}, {back.c.data, d_}, d.hidden, {.add = true});
      kernels::relu_gradient(rows, d_, made.hidden, d.hidden);
      kernels::gemm(d_, d_, rows, {x.row(block.first), 1, x.stride(0)}, d.hidden, {d_w[h].row(0), d_}, {.add = true});
      kernels::gemm(rows, d_, d_, {d.hidden.data, d_}, back.hidden, {d_x.row(block.first), d_x.stride(0)});
    });
  }

 private:
  struct Factors {
    index_t a, c;
    Factors(const Problem& p, const Options& o) {
      const index_t l = o.max_len == 0 ? p.kv_len : o.max_len;
      a = o.a > 0 ? o.a : static_cast<index_t>(std::sqrt(static_cast<double>(l)));
      c = (l + a - 1) / a;
    }
    // Of a step the tokens so far are fewer than those that L was set by.
    explicit Factors(const ParameterSet<float>& parameters)
        : a(parameters["Wa"].extent(2)), c(parameters["Wc"].extent(2)) {}
  };

  // What some rows need: the hidden layer and both factors, one after the other.
  struct Layers {
    kernels::Into hidden, a, c;
    Layers(float* at, index_t rows, index_t d, const Factors& f)
        : hidden{at, d}, a{at + rows * d, f.a}, c{at + rows * (d + f.a), f.c} {}
  };
  index_t scratch_floats() const { return kernels::WeightedSum::max_rows * (d_ + f_.a + f_.c); }

  // Leaves the layers of the block in the worker's scratch.
  kernels::Rows logits(const FloatArrays& a, const ParameterSet<float>& parameters, const kernels::WeightBlock& block,
                       const Workspace& workspace) const {
    const auto w = parameters.view<3>("W")[block.head], wa = parameters.view<3>("Wa")[block.head],
               wc = parameters.view<3>("Wc")[block.head];
    const auto x = a.x()[block.batch][block.head];
    const Factors f(parameters);
    const index_t rows = block.rows, whole = block.keys / f.c, rest = block.keys % f.c;
    ATTN_ASSERT(rows * (d_ + f.a + f.c) <= scratch_.count);
    const Layers to(workspace.of(block.worker, scratch_).data(), rows, d_, f);
    kernels::gemm(rows, d_, d_, {x.row(block.first), x.stride(0)}, {w.row(0), d_}, to.hidden);
    kernels::relu_plus(rows, d_, to.hidden, 0, to.hidden);
    kernels::gemm(rows, f.a, d_, {to.hidden.data, d_}, {wa.row(0), f.a}, to.a);
    kernels::gemm(rows, f.c, d_, {to.hidden.data, d_}, {wc.row(0), f.c}, to.c);
    for (index_t i = 0; i < rows; ++i) {
      float* row = block.to.data + i * block.to.stride;
      const float *factors = to.a.data + i * f.a, *numbers = to.c.data + i * f.c;
      kernels::scale_rows(whole, f.c, {numbers, 0}, factors, {row, f.c});
      if (rest > 0) kernels::scale_rows(1, rest, {numbers, 0}, factors + whole, {row + whole * f.c, f.c});
    }
    return block.to;
  }

  index_t d_;
  Factors f_;
  Booking<float> scratch_, gradients_, transposed_;
  kernels::WeightedSum engine_;
};
ATTN_VARIANT(synth_dense_factored, SynthDenseFactored)

}  // namespace attn
