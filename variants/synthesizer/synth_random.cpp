#include <algorithm>
#include <cmath>
#include <span>

#include "attn/kernels/rows.hpp"
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

  static Status supports(const Problem& p, const Options& o) { return within_learned(p, o.max_len); }

  static Cost cost(const Problem& p, const Options& o) {
    const double pairs = count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); });
    const auto heads = static_cast<double>(p.heads), values = static_cast<double>(p.batch * p.value_dim);
    return {.flops = 2 * heads * pairs * values,
            .bytes = sizeof(float) * heads * (2 * values * static_cast<double>(p.q_len) + pairs),
            .exps = o.cached ? 0 : heads * pairs};
  }

  // One product for V, with R trained another for its gradient, and its softmax again.
  static Cost backward_cost(const Problem& p, const Options& o) {
    const Cost forward = cost(p, o);
    return {.flops = (o.cached ? 1 : 2) * forward.flops, .bytes = 2 * forward.bytes, .exps = forward.exps};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Inputs<T>& in, const ParameterSet<T>& parameters) {
    const Indices rows({static_cast<index_t>(in.position.size())}, in.position);
    const Tensor<T> table = slice(take(parameters[o.cached ? "P" : "R"], rows, 1), -1, 0, p.kv_len);
    return matmul(o.cached ? table : softmax(table, allowed_pairs(p, in, every_key)), in.v);
  }

  SynthRandom(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        cached_(o.cached),
        engine_(p, cached_ ? kernels::WeightedSum::Kind::table : kernels::WeightedSum::Kind::softmax,
                kernels::WeightedSum::Sharing::batch, workspace) {
    if (!workspace.training()) return;
    scratch_ = workspace.per_worker<float>(block * std::max(block, p.q_len));
    if (!cached_) values_ = workspace.shared<float>(p.batch * p.heads * p.value_dim * p.kv_len);
  }

  void run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out, Workspace& workspace) const {
    const auto table = parameters.view<3>(cached_ ? "P" : "R");
    engine_.run(in.v, out, workspace, [&](const kernels::WeightBlock& rows) {
      return kernels::Rows{table[rows.head].row(rows.first), table.stride(1)};
    });
  }

  // dV = P^T dO of each batch item. With R trained, dP = sum over the batch of dO V^T and dR = P (dP - sum of P dP along the row);
  // the gradient's own table holds P meanwhile, so there is no other.
  void backward(const FloatInputs& in, const ParameterSet<float>& parameters, const BackwardArrays& b, Workspace& workspace) const {
    clear(b.d_q);
    clear(b.d_k);
    if (cached_) return pull_values(parameters.view<3>("P"), b, workspace);
    const auto d_r = b.d_parameters.view<3>("R");
    make_weights(parameters.view<3>("R"), d_r);
    pull_values(d_r, b, workspace);
    const View<float, 4> transposed(workspace.shared(values_).data(), {p_.batch, p_.heads, p_.value_dim, p_.kv_len});
    kernels::transpose_heads(in.v, transposed);
    pull_weights(b.d_out, transposed, d_r, workspace);
  }

 private:
  static constexpr index_t block = 64;  // rows or columns of a table at a time

  index_t blocks() const { return (p_.q_len + block - 1) / block; }

  static void clear(const View<float, 4>& x) {
    parallel_tasks(x.extent(0) * x.extent(1), [&](index_t task, int) {
      const auto head = x[task / x.extent(1)][task % x.extent(1)];
      for (index_t i = 0; i < head.extent(0); ++i) std::fill_n(head.row(i), head.extent(1), 0.0f);
    });
  }

  index_t visible(index_t row) const { return p_.causal ? row + 1 : p_.q_len; }

  // Softmax of R, zeros elsewhere.
  void make_weights(const View<const float, 3>& r, const View<float, 3>& to) const {
    const index_t length = r.extent(1);
    parallel_tasks(p_.heads * length, [&](index_t task, int) {
      const index_t h = task / length, row = task % length, seen = row < p_.q_len ? visible(row) : 0;
      if (seen > 0) kernels::softmax(1, seen, {r[h].row(row), length}, 1, {to[h].row(row), length});
      std::fill_n(to[h].row(row) + seen, length - seen, 0.0f);
    });
  }

  // A task makes some rows of dV for the whole batch: columns of P, which are copied to lie together.
  void pull_values(const View<const float, 3>& weights, const BackwardArrays& b, const Workspace& workspace) const {
    parallel_tasks(p_.heads * blocks(), [&](index_t task, int worker) {
      const index_t h = task / blocks(), j = task % blocks() * block, keys = std::min(block, p_.q_len - j);
      const kernels::Into packed{workspace.of(worker, scratch_).data(), block};
      const index_t begin = p_.causal ? j : 0;  // rows before see none of these keys
      for (index_t i = begin; i < p_.q_len; i += block) {
        const index_t rows = std::min(block, p_.q_len - i);
        kernels::copy(rows, keys, {weights[h].row(i) + j, weights.stride(1)}, packed);
        for (index_t batch = 0; batch < p_.batch; ++batch) {
          const auto d_out = b.d_out[batch][h];
          const auto d_v = b.d_v[batch][h];
          kernels::gemm(keys, p_.value_dim, rows, {packed.data, 1, block}, {d_out.row(i), d_out.stride(0)},
                        {d_v.row(j), d_v.stride(0)}, {.add = i > begin});
        }
      }
    });
  }

  // From P in `table` to dR.
  void pull_weights(const View<const float, 4>& d_out, const View<const float, 4>& transposed, const View<float, 3>& table,
                    const Workspace& workspace) const {
    const index_t n = p_.q_len, length = table.extent(1);
    parallel_tasks(p_.heads * blocks(), [&](index_t task, int worker) {
      const index_t h = task / blocks(), i = task % blocks() * block, rows = std::min(block, n - i);
      const kernels::Into d_weights{workspace.of(worker, scratch_).data(), n};
      for (index_t batch = 0; batch < p_.batch; ++batch) {
        const auto d_rows = d_out[batch][h];
        kernels::gemm(rows, n, p_.value_dim, {d_rows.row(i), d_rows.stride(0)}, {transposed[batch][h].row(0), n}, d_weights,
                      {.add = batch > 0});
      }
      for (index_t row = 0; row < rows; ++row) {
        float* const weights = table[h].row(i + row);
        float mean = 0;
        kernels::row_dots(1, n, {weights, length}, d_weights.data + row * n, &mean);
        const float* const d_row = d_weights.data + row * n;
        for (index_t j = 0; j < n; ++j) weights[j] *= d_row[j] - mean;
      }
    });
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

  static index_t length(const Problem& p, const Options& o) { return o.max_len == 0 ? p.q_len : o.max_len; }

  Problem p_;
  bool cached_;
  kernels::WeightedSum engine_;
  Booking<float> scratch_, values_;
};
ATTN_VARIANT(synth_random, SynthRandom)

}  // namespace attn
