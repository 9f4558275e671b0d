#include <algorithm>
#include <cmath>
#include <span>

#include "attn/kernels/weighted_sum.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// synth_random: Synthesizer with a table of logits in the place of queries and keys: every input gets the same weights.
//   out = softmax(R_h[:N,:N]) V,  row by row, over j <= i when causal;  R [H,L,L], no 1/sqrt(D)
//   Tay et al. 2020, arXiv:2005.00743, section 3.1.3 (Random Synthesizer)
//   useful flops 2 N^2 Dv a head and batch item, half when causal; R itself takes 4 H L^2 bytes
// cached=yes is the fixed Random Synthesizer, or a trained one that serves: its weights never change, so the parameter is the
// table P = softmax(R) itself, made once with the other parameters and not in the time of a run. cached=no takes R, which can
// be trained, and its softmax in every run: H N^2 exps, once for the whole batch.
struct SynthRandom {
  struct Options {
    bool cached = true;
    index_t max_len = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .flag("cached", &Options::cached,
              "yes: the parameter is softmax(R), frozen; no: it is R, and its softmax is part of each run")
        .integer("max_len", &Options::max_len, 0, 65536, "rows and columns of R, of which the first N are used; 0: N");
  }

  static VariantInfo info() {
    return {.title = "Random Synthesizer",
            .formula = "out = softmax(R) V",
            .paper = "Tay et al. 2020, arXiv:2005.00743, section 3.1.3",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::different,
            .reads = Reads::xv,
            .cross = false,
            .in_default_sweep = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t l = length(p, o);
    if (!o.cached) return {{.name = "R", .shape = {p.heads, l, l}, .init = init::xavier_uniform(l, l)}};
    // Of the N x N that count: what softmax normalises depends on N.
    return {{.name = "P", .shape = {p.heads, p.q_len, p.q_len}, .init = softmax_of_glorot(l, p.causal), .trainable = false}};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (p.q_len <= length(p, o)) return {};
    return refuse("is learned for max_len=" + std::to_string(o.max_len) + " positions at most");
  }

  static Cost cost(const Problem& p, const Options& o) {
    const double pairs = count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); });
    const auto heads = static_cast<double>(p.heads), values = static_cast<double>(p.batch * p.value_dim);
    return {.flops = 2 * heads * pairs * values,
            .bytes = sizeof(float) * heads * (2 * values * static_cast<double>(p.q_len) + pairs),
            .exps = o.cached ? 0 : heads * pairs};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Inputs<T>& in, const ParameterSet<T>& parameters) {
    const Indices rows({static_cast<index_t>(in.position.size())}, in.position);
    const Tensor<T> table = slice(take(parameters[o.cached ? "P" : "R"], rows, 1), -1, 0, p.kv_len);
    return matmul(o.cached ? table : softmax(table, allowed_pairs(p, in, every_key)), in.v);
  }

  SynthRandom(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : cached_(o.cached),
        engine_(p, cached_ ? kernels::WeightedSum::Kind::table : kernels::WeightedSum::Kind::softmax,
                kernels::WeightedSum::Sharing::batch, workspace) {}

  void run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out, Workspace& workspace) const {
    const auto table = parameters.view<3>(cached_ ? "P" : "R");
    engine_.run(in.v, out, workspace, [&](const kernels::WeightBlock& block) {
      return kernels::Rows{table[block.head].row(block.first), table.stride(1)};
    });
  }

 private:
  static Init softmax_of_glorot(index_t length, bool causal) {
    return [=](std::span<float> values, const Shape& shape, const Rng& rng) {
      init::xavier_uniform(length, length)(values, shape, rng);
      const index_t n = shape.back();
      for (index_t row = 0; row * n < static_cast<index_t>(values.size()); ++row) {
        const auto weights = values.subspan(static_cast<std::size_t>(row * n), static_cast<std::size_t>(n));
        const auto visible = weights.first(static_cast<std::size_t>(causal ? row % n + 1 : n));
        double sum = 0;  // Glorot's logits are below 2 in size: no maximum is needed
        for (float& w : visible) sum += static_cast<double>(w = std::exp(w));
        for (float& w : visible) w = static_cast<float>(static_cast<double>(w) / sum);
        std::fill(weights.begin() + static_cast<std::ptrdiff_t>(visible.size()), weights.end(), 0.0f);
      }
    };
  }

  static index_t length(const Problem& p, const Options& o) { return o.max_len == 0 ? p.q_len : o.max_len; }

  bool cached_;
  kernels::WeightedSum engine_;
};
ATTN_VARIANT(synth_random, SynthRandom)

}  // namespace attn
