#include <algorithm>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"
#include "attn/variant/backward_cost.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// synth_random_factored: the Random Synthesizer with its table of logits as a product of two thin ones.
//   out = softmax((R1 R2)[:N,:N]) V,  row by row, over j <= i when causal;  R1 [H,L,k], R2 [H,k,L], no 1/sqrt(D)
//   Tay et al. 2020, arXiv:2005.00743, section 3.1.4 (Factorized Random Synthesizer; k = 8)
//   useful flops 2 N^2 k a head and 2 N^2 Dv a head and batch item, H N^2 exps, half of all when causal; no N^2 memory
// The weights are made in every run, once for the batch. k = L with R2 = I is synth_random:cached=no.
struct SynthRandomFactored {
  struct Options {
    index_t k = 8;
    index_t max_len = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("k", &Options::k, 1, 65536, "columns of R1, rows of R2")
        .integer("max_len", &Options::max_len, 0, unlimited, "positions in R1 and R2, of which the first N are used; 0: N");
  }

  static VariantInfo info() {
    return {.title = "Factorized Random Synthesizer",
            .formula = "out = softmax(R1 R2) V",
            .paper = "Tay et al. 2020, arXiv:2005.00743, section 3.1.4",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::different,
            .reads = Reads::xv,
            .cross = false,
            .grouped_heads = true,
            .last_rows = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t l = length(p, o);
    return {{.name = "R1",
             .shape = {p.heads, l, o.k},
             .init = init::xavier_uniform(l, o.k),
             .axes = "heads, L, k",
             .doc = "R1 R2: row i makes the logits of row i"},
            {.name = "R2",
             .shape = {p.heads, o.k, l},
             .init = init::xavier_uniform(o.k, l),
             .axes = "heads, k, L",
             .doc = "column j those of key j"}};
  }

  static Status supports(const Problem& p, const Options& o) { return within_learned(p, o.max_len); }
  static Status supports_backward(const Problem& p, const Options&) { return ungrouped(p); }

  static Cost cost(const Problem& p, const Options& o) {
    const double pairs = count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); });
    const auto heads = static_cast<double>(p.heads), k = static_cast<double>(o.k), rows = static_cast<double>(p.q_len);
    const auto keys = static_cast<double>(p.kv_len), values = static_cast<double>(p.batch * p.value_dim);
    return {.flops = 2 * heads * pairs * (k + values),
            .bytes = v_bytes(p) + out_bytes(p) + sizeof(float) * heads * (rows + keys) * k,
            .exps = heads * pairs};
  }

  static Cost backward_cost(const Problem& p, const Options& o) {
    const Cost forward = cost(p, o);
    return remade_logits_backward_cost(forward, 2 * forward.exps * static_cast<double>(p.batch * p.value_dim));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options&, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Indices rows({static_cast<index_t>(in.position.size())}, in.position);
    const Tensor<T> logits = matmul(take(parameters["R1"], rows, 1), slice(parameters["R2"], -1, 0, p.kv_len));
    return matmul(softmax(logits, allowed_pairs(p, in, every_key)), per_query_head(p, in.v));
  }

  SynthRandomFactored(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : o_(o), engine_(p, kernels::WeightedSum::Kind::softmax, kernels::WeightedSum::Sharing::batch, workspace) {
    if (workspace.training()) transposed_ = workspace.shared<float>(p.heads * p.kv_len * o.k);
  }

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    engine_.run(a.v, a.out, workspace, [&](const kernels::WeightBlock& block) { return logits(parameters, block); });
  }

  // dR1 = dS R2^T, dR2 = R1^T dS.
  void backward(const FloatArrays& a, const ParameterSet<float>& parameters, const FloatGradients& g, Workspace& workspace) const {
    const auto r1 = parameters.view<3>("R1"), r2 = parameters.view<3>("R2");
    const auto d_r1 = g.d_parameters.view<3>("R1"), d_r2 = g.d_parameters.view<3>("R2");
    const index_t length = r1.extent(1), n = a.v.extent(2);
    const View<float, 3> transposed(workspace.shared(transposed_).data(), {r1.extent(0), n, o_.k});
    parallel_tasks(r1.extent(0), [&](index_t h, int) {
      kernels::transpose(o_.k, n, {r2[h].row(0), length}, {transposed[h].row(0), o_.k});
      std::fill_n(d_r1[h].row(0), length * o_.k, 0.0f);
      std::fill_n(d_r2[h].row(0), length * o_.k, 0.0f);
    });
    kernels::clear_heads(g.d_q);
    kernels::clear_heads(g.d_k);
    const auto weights = [&](const kernels::WeightBlock& block) { return logits(parameters, block); };
    engine_.backward(a.v, g.d_out, g.d_v, workspace, weights, [&](const kernels::WeightBlock& block, kernels::Rows d_logits) {
      const index_t h = block.head;
      kernels::gemm(block.rows, o_.k, block.keys, {d_logits.data, d_logits.stride}, {transposed[h].row(0), o_.k},
                    {d_r1[h].row(block.first), o_.k});
      kernels::gemm(o_.k, block.keys, block.rows, {r1[h].row(block.first), 1, o_.k}, d_logits, {d_r2[h].row(0), length},
                    {.add = true});
    });
  }

 private:
  static index_t length(const Problem& p, const Options& o) { return o.max_len == 0 ? p.kv_len : o.max_len; }

  kernels::Rows logits(const ParameterSet<float>& parameters, const kernels::WeightBlock& block) const {
    const auto left = parameters.view<3>("R1")[block.head], right = parameters.view<3>("R2")[block.head];
    kernels::gemm(block.rows, block.keys, o_.k, {left.row(block.position), o_.k}, {right.row(0), right.stride(0)}, block.to);
    return block.to;
  }

  Options o_;
  kernels::WeightedSum engine_;
  Booking<float> transposed_;  // R2
};
ATTN_VARIANT(synth_random_factored, SynthRandomFactored)

}  // namespace attn
