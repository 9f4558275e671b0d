#include <algorithm>
#include <span>

#include "attn/kernels/gemm.hpp"
#include "attn/kernels/rows.hpp"
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
    // Over the N x N that count: what softmax normalises depends on N.
    return {{.name = "P", .shape = {p.heads, p.q_len, p.q_len}, .init = softmax_of_glorot(l, p.causal), .trainable = false}};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (p.q_len <= length(p, o)) return {};
    return refuse("q_len=" + std::to_string(p.q_len) + " exceeds the table, max_len=" + std::to_string(o.max_len));
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
      : p_(p), o_(o), weights_(workspace.per_worker<float>(o.cached ? 0 : block_rows * p.q_len)) {}

  void run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out, Workspace& workspace) const {
    const auto table = parameters.view<3>(o_.cached ? "P" : "R");
    const index_t n = p_.q_len, blocks = (n + block_rows - 1) / block_rows;
    parallel_tasks(p_.heads * blocks, [&](index_t task, int worker) {
      const index_t head = task % p_.heads, first = (blocks - 1 - task / p_.heads) * block_rows;  // the longest first
      const index_t rows = std::min(block_rows, n - first);
      kernels::Rows weights{table[head].row(first), table.stride(1)};
      if (!o_.cached) {
        const kernels::Into scratch{workspace.of(worker, weights_).data(), n};
        take_softmax(weights, first, rows, scratch);
        weights = scratch;
      }
      multiply(weights, first, rows, head, in.v, out);
    });
  }

 private:
  static constexpr index_t block_rows = 96;   // of the table at a time
  static constexpr index_t block_keys = 128;  // 48 KB of the table, which then meet V of every batch item

  void take_softmax(kernels::Rows logits, index_t first, index_t rows, kernels::Into to) const {
    for (index_t i = 0; i < rows; ++i) {
      const index_t keys = p_.causal ? first + i + 1 : p_.kv_len;
      float* row = to.data + i * to.stride;
      kernels::softmax(1, keys, {logits.data + i * logits.stride, logits.stride}, 1, {row, to.stride});
      std::fill(row + keys, row + (p_.causal ? first + rows : p_.kv_len), 0.0f);
    }
  }

  void multiply(kernels::Rows weights, index_t first, index_t rows, index_t head, View<const float, 4> v, Output out) const {
    const index_t keys = p_.causal ? first + rows : p_.kv_len;
    for (index_t j = 0; j < keys; j += block_keys) {
      for (index_t b = 0; b < p_.batch; ++b) {
        const auto values = v[b][head];
        const auto to = out[b][head];
        kernels::gemm(rows, p_.value_dim, std::min(block_keys, keys - j), {weights.data + j, weights.stride},
                      {values.row(j), values.stride(0)}, {to.row(first), to.stride(0)},
                      {.add = j > 0, .lower = p_.causal ? kernels::Lower::left : kernels::Lower::none, .diagonal = first - j});
      }
    }
  }

  static Init softmax_of_glorot(index_t length, bool causal) {
    return [=](std::span<float> values, const Shape& shape, const Rng& rng) {
      init::xavier_uniform(length, length)(values, shape, rng);
      const index_t n = shape.back();
      for (index_t row = 0; row * n < static_cast<index_t>(values.size()); ++row) {
        const auto weights = values.subspan(static_cast<std::size_t>(row * n), static_cast<std::size_t>(n));
        const auto visible = weights.first(static_cast<std::size_t>(causal ? row % n + 1 : n));
        double sum = 0;  // logits are below 1 in size: no maximum is needed
        for (float& w : visible) sum += w = std::exp(w);
        for (float& w : visible) w = static_cast<float>(w / sum);
        std::fill(weights.begin() + static_cast<std::ptrdiff_t>(visible.size()), weights.end(), 0.0f);
      }
    };
  }

  static index_t length(const Problem& p, const Options& o) { return o.max_len == 0 ? p.q_len : o.max_len; }

  Problem p_;
  Options o_;
  Booking<float> weights_;
};
ATTN_VARIANT(synth_random, SynthRandom)

}  // namespace attn
