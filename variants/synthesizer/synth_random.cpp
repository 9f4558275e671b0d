#include <algorithm>
#include <cmath>
#include <span>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"
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
            .grouped_heads = true,
            .in_default_sweep = true,
            .last_rows = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t l = length(p, o);
    if (!o.cached)
      return {{.name = "R",
               .shape = {p.heads, l, l},
               .init = init::xavier_uniform(l, l),
               .axes = "heads, L, L",
               .doc = "R[head, i, j]: the logit of key j for row i"}};
    // Parameters of the N x N that count: what softmax normalises depends on N.
    ParameterSpec table{
        .name = "P",
        .shape = {p.heads, p.kv_len, p.kv_len},
        .init = softmax_of_glorot(l, p.causal),
        .trainable = false,
        .axes = "heads, q_len, q_len",
        .doc = "P[head, i, j]: the weight of key j for row i, a softmax over the keys that the row sees, 0 for others"};
    if (p.causal) table.check = [n = p.kv_len](std::span<const float> values) { return weighs_no_later_key(values, n); };
    return {table};
  }

  static Status supports(const Problem& p, const Options& o) { return within_learned(p, o.max_len); }
  static Status supports_backward(const Problem& p, const Options&) { return ungrouped(p); }

  static Cost cost(const Problem& p, const Options& o) {
    const double pairs = count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); });
    const auto heads = static_cast<double>(p.heads), values = static_cast<double>(p.batch * p.value_dim);
    return {.flops = 2 * heads * pairs * values,
            .bytes = v_bytes(p) + out_bytes(p) + sizeof(float) * heads * pairs,
            .exps = o.cached ? 0 : heads * pairs};
  }

  // One product for V, with R trained another for its gradient, and its softmax again.
  static Cost backward_cost(const Problem& p, const Options& o) {
    const Cost forward = cost(p, o);
    return {.flops = (o.cached ? 1 : 2) * forward.flops, .bytes = 2 * forward.bytes, .exps = forward.exps};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Indices rows({static_cast<index_t>(in.position.size())}, in.position);
    const Tensor<T> table = slice(take(parameters[o.cached ? "P" : "R"], rows, 1), -1, 0, p.kv_len);
    return matmul(o.cached ? table : softmax(table, allowed_pairs(p, in, every_key)), per_query_head(p, in.v));
  }

  SynthRandom(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        cached_(o.cached),
        engine_(p, cached_ ? kernels::WeightedSum::Kind::table : kernels::WeightedSum::Kind::softmax,
                kernels::WeightedSum::Sharing::batch, workspace) {
    if (workspace.training() && cached_) scratch_ = workspace.per_worker<float>(block * block);
  }

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    engine_.run(a.v, a.out, workspace, [&](const kernels::WeightBlock& rows) { return table(parameters, rows); });
  }

  // dV = P^T dO of each batch item. With R trained, dP = sum over the batch of dO V^T and dR = P (dP - sum of P dP along the row).
  void backward(const FloatArrays& a, const ParameterSet<float>& parameters, const FloatGradients& g, Workspace& workspace) const {
    kernels::clear_heads(g.d_q);
    kernels::clear_heads(g.d_k);
    if (cached_) return pull_values(parameters.view<3>("P"), g, workspace);
    const auto d_r = g.d_parameters.view<3>("R");
    const index_t length = d_r.extent(1);
    parallel_tasks(p_.heads, [&](index_t h, int) { std::fill_n(d_r[h].row(0), length * length, 0.0f); });
    const auto weights = [&](const kernels::WeightBlock& rows) { return table(parameters, rows); };
    engine_.backward(a.v, g.d_out, g.d_v, workspace, weights, [&](const kernels::WeightBlock& rows, kernels::Rows d_logits) {
      kernels::copy(rows.rows, rows.keys, d_logits, {d_r[rows.head].row(rows.first), length});
    });
  }

 private:
  static constexpr index_t block = 64;  // rows or columns of a table at a time

  index_t blocks() const { return (p_.q_len + block - 1) / block; }

  kernels::Rows table(const ParameterSet<float>& parameters, const kernels::WeightBlock& rows) const {
    const auto all = parameters.view<3>(cached_ ? "P" : "R");
    return {all[rows.head].row(rows.position), all.stride(1)};
  }

  // A task makes some rows of dV for the whole batch: columns of P, which are copied to lie together.
  void pull_values(const View<const float, 3>& weights, const FloatGradients& g, const Workspace& workspace) const {
    parallel_tasks(p_.heads * blocks(), [&](index_t task, int worker) {
      const index_t h = task / blocks(), j = task % blocks() * block, keys = std::min(block, p_.q_len - j);
      const kernels::Into packed{workspace.of(worker, scratch_).data(), block};
      const index_t begin = p_.causal ? j : 0;  // rows before see none of these keys
      for (index_t i = begin; i < p_.q_len; i += block) {
        const index_t rows = std::min(block, p_.q_len - i);
        kernels::copy(rows, keys, {weights[h].row(i) + j, weights.stride(1)}, packed);
        for (index_t batch = 0; batch < p_.batch; ++batch) {
          const auto d_out = g.d_out[batch][h];
          const auto d_v = g.d_v[batch][h];
          kernels::gemm(keys, p_.value_dim, rows, {packed.data, 1, block}, {d_out.row(i), d_out.stride(0)},
                        {d_v.row(j), d_v.stride(0)}, {.add = i > begin});
        }
      }
    });
  }

  static Status weighs_no_later_key(std::span<const float> values, index_t n) {
    for (index_t i = 0; i < static_cast<index_t>(values.size()); ++i) {
      const index_t row = i / n % n, key = i % n;
      if (key > row && values[static_cast<std::size_t>(i)] != 0)
        return refuse("element " + std::to_string(i) + " is the weight of key " + std::to_string(key) + " for row " +
                      std::to_string(row) +
                      ", which must be 0 when causal: the table is the softmax over the keys that a row sees");
    }
    return {};
  }

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

  static index_t length(const Problem& p, const Options& o) { return o.max_len == 0 ? p.kv_len : o.max_len; }

  Problem p_;
  bool cached_;
  kernels::WeightedSum engine_;
  Booking<float> scratch_;
};
ATTN_VARIANT(synth_random, SynthRandom)

}  // namespace attn
