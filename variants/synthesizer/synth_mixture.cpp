#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <string_view>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"
#include "attn/variant/backward_cost.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// synth_mixture: logits of dot products and of a Synthesizer, mixed under one softmax.
//   out = softmax((1 - s) Q K^T / sqrt(D) + s B) V,  s = sigmoid(alpha);  j <= i when causal
//   with=random: B = R [H,L,L].  with=dense: B = relu(Q W1) W2, W1 [H,D,D], W2 [H,D,L]; the query stands for x
//   Tay et al. 2020, arXiv:2005.00743, section 3.2; one alpha, starting at 0, as in the authors' code (mesh_tensorflow, "alpha")
//   useful flops 2 N^2 (D + Dv) a head, dense 2 N^2 D + 2 N D^2 more, half when causal; workspace N D a head, some rows of N a
//   worker
// A large negative alpha is full attention.
struct SynthMixture {
  enum class With { random, dense };
  struct Options {
    With with = With::random;
    index_t max_len = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("with", &Options::with, {{"random", With::random}, {"dense", With::dense}}, "the Synthesizer that is mixed in")
        .integer("max_len", &Options::max_len, 0, 65536, "positions that it is learned for, of which the first N are used; 0: N");
  }

  static VariantInfo info() {
    return {.title = "Mixture of Synthesizer and dot product",
            .formula = "out = softmax((1 - s) Q K^T / sqrt(D) + s B) V",
            .paper = "Tay et al. 2020, arXiv:2005.00743, section 3.2",
            .cost_in_n = "N^2 D",
            .fine_print = "with=dense: B = relu(Q W1) W2, the query in the place of x. s = sigmoid(alpha).",
            .exactness = Exactness::different,
            .cross = false,
            .grouped_heads = true,
            .last_rows = true};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t h = p.heads, d = p.head_dim, l = o.max_len == 0 ? p.kv_len : o.max_len;
    const ParameterSpec alpha{
        .name = "alpha", .shape = {1}, .init = init::zeros(), .axes = "1", .doc = "s = sigmoid(alpha), of all heads"};
    if (o.with == With::random)
      return {alpha,
              {.name = "R",
               .shape = {h, l, l},
               .init = init::xavier_uniform(l, l),
               .axes = "heads, L, L",
               .doc = "R[head, i, j]: the logit of key j for row i"}};
    return {alpha,
            {.name = "W1",
             .shape = {h, d, d},
             .init = init::xavier_uniform(d, d),
             .axes = "heads, head_dim, head_dim",
             .doc = "q_i W1: rows meet q"},
            {.name = "W2",
             .shape = {h, d, l},
             .init = init::xavier_uniform(d, l),
             .axes = "heads, head_dim, L",
             .doc = "relu(.) W2: column j makes the logit of key j"}};
  }

  static Status supports(const Problem& p, const Options& o) { return within_learned(p, o.max_len); }
  static Status supports_backward(const Problem& p, const Options&) { return ungrouped(p); }

  static Cost cost(const Problem& p, const Options& o) {
    const double pairs = count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); });
    const auto heads = static_cast<double>(p.heads), all = heads * static_cast<double>(p.batch);
    const auto rows = static_cast<double>(p.q_len), keys = static_cast<double>(p.kv_len), d = static_cast<double>(p.head_dim);
    Cost c = softmax_cost(p, pairs);
    if (o.with == With::dense) c.flops += all * (2 * pairs * d + 2 * rows * d * d);
    c.bytes += sizeof(float) * heads * (o.with == With::random ? pairs : d * (d + keys));
    return c;
  }

  static Cost backward_cost(const Problem& p, const Options& o) {
    const Cost forward = cost(p, o);
    return remade_logits_backward_cost(forward, 2 * forward.exps * static_cast<double>(p.value_dim));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> share = sigmoid(parameters["alpha"]);
    const Tensor<T> products = matmul_transposed(in.q, per_query_head(p, in.k)) * static_cast<T>(p.scale());
    const Indices rows({static_cast<index_t>(in.position.size())}, in.position);
    const Tensor<T> other =
        o.with == With::random ? take(parameters["R"], rows, 1) : matmul(relu(matmul(in.q, parameters["W1"])), parameters["W2"]);
    const Tensor<T> logits = (T{1} - share) * products + share * slice(other, -1, 0, p.kv_len);
    return matmul(softmax(logits, allowed_pairs(p, in, every_key)), per_query_head(p, in.v));
  }

  SynthMixture(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        keys_(transposes() ? workspace.shared<float>(p.batch * p.kv_heads * p.head_dim * p.kv_len) : Booking<float>{}),
        scratch_(workspace.per_worker<float>(kernels::WeightedSum::max_rows * p.head_dim)),
        engine_(p, kernels::WeightedSum::Kind::softmax, kernels::WeightedSum::Sharing::none, workspace) {
    if (!transposes()) products_ = workspace.per_worker<float>(p.kv_len);
    if (o.with == With::dense) hidden_ = workspace.per_worker<float>(scratch_.count);
    if (!workspace.training()) return;
    d_alpha_ = workspace.shared<double>(p.heads);
    if (o.with == With::random) return;
    d_hidden_ = workspace.per_worker<float>(scratch_.count);
    transposed_ = workspace.shared<float>(p.heads * p.head_dim * (p.head_dim + p.kv_len));
  }

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    if (transposes()) {
      const View<float, 4> keys(workspace.shared(keys_).data(), {p_.batch, p_.kv_heads, p_.head_dim, p_.kv_len});
      kernels::transpose_heads(a.k, keys);
    }
    const Shares shares(parameters, p_);
    engine_.run(a.v, a.out, workspace,
                [&](const kernels::WeightBlock& block) { return logits(a, parameters, shares, block, workspace); });
  }

  // dQ = (1 - s) dS K / sqrt(D) and so on; dB = s dS. As s' = s (1 - s), d alpha = (1 - s) sum dB B - s sum dQ Q, the sums over dQ
  // of the products alone.
  void backward(const FloatArrays& a, const ParameterSet<float>& parameters, const FloatGradients& g, Workspace& workspace) const {
    const Shares shares(parameters, p_);
    const float share = shares.of_other[0];
    const index_t d = p_.head_dim, n = p_.q_len;
    const auto d_alpha = workspace.shared(d_alpha_);
    std::fill(d_alpha.begin(), d_alpha.end(), 0.0);
    if (o_.with == With::dense) transpose_layers(parameters, workspace);
    for (const std::string_view name : learned_tensors()) {
      const auto gradient = g.d_parameters.view<3>(name);
      parallel_tasks(p_.heads, [&](index_t h, int) { std::fill_n(gradient[h].row(0), gradient.stride(0), 0.0f); });
    }
    const auto weights = [&](const kernels::WeightBlock& block) { return logits(a, parameters, shares, block, workspace); };
    engine_.backward(a.v, g.d_out, g.d_v, workspace, weights, [&](const kernels::WeightBlock& block, kernels::Rows d_logits) {
      const index_t rows = block.rows, first = block.first, keys = block.keys, h = block.head;
      const auto k = a.k[block.batch][h], q = a.q[block.batch][h];
      const auto d_q = g.d_q[block.batch][h], d_k = g.d_k[block.batch][h];
      const kernels::Into d_queries{d_q.row(first), d_q.stride(0)}, scaled{workspace.of(block.worker, scratch_).data(), d};
      const kernels::Left d_scores{d_logits.data, d_logits.stride}, turned{d_logits.data, 1, d_logits.stride};
      kernels::gemm(rows, d, keys, d_scores, {k.row(0), k.stride(0)}, d_queries);
      kernels::scale_rows(rows, d, d_queries, shares.of_products.data(), d_queries);
      kernels::gemm(keys, d, rows, turned, scaled, {d_k.row(0), d_k.stride(0)}, {.add = first + rows < n});
      double of_products = 0, of_other = 0;
      const auto add_dots = [&](double& sum, index_t width, kernels::Rows x, kernels::Rows y) {
        for (index_t i = 0; i < rows; ++i) {
          float dot = 0;
          kernels::row_dots(1, width, {x.data + i * x.stride, width}, y.data + i * y.stride, &dot);
          sum += static_cast<double>(dot);
        }
      };
      add_dots(of_products, d, {q.row(first), q.stride(0)}, d_queries);
      if (o_.with == With::random) {
        const kernels::Into d_table{g.d_parameters.view<3>("R")[h].row(first), g.d_parameters.view<3>("R").stride(1)};
        const auto table = parameters.view<3>("R")[h];
        kernels::add(rows, keys, d_logits, d_table, share);
        add_dots(of_other, keys, {table.row(first), table.stride(0)}, d_logits);
        of_other *= static_cast<double>(share);
      } else {
        const auto d_w1 = g.d_parameters.view<3>("W1")[h], d_w2 = g.d_parameters.view<3>("W2")[h];
        const kernels::Into hidden{workspace.of(block.worker, hidden_).data(), d};  // times s
        const kernels::Into d_hidden{workspace.of(block.worker, d_hidden_).data(), d};
        const float* transposed = workspace.shared(transposed_).data() + h * d * (d + n);
        kernels::gemm(d, keys, rows, {hidden.data, 1, d}, d_logits, {d_w2.row(0), d_w2.stride(0)}, {.add = true});
        kernels::gemm(rows, d, keys, d_scores, {transposed + d * d, d}, d_hidden);
        add_dots(of_other, d, hidden, d_hidden);
        kernels::relu_gradient(rows, d, hidden, d_hidden);
        kernels::scale_rows(rows, d, d_hidden, shares.of_other.data(), d_hidden);
        kernels::gemm(d, d, rows, {q.row(first), 1, q.stride(0)}, d_hidden, {d_w1.row(0), d}, {.add = true});
        kernels::gemm(rows, d, d, {d_hidden.data, d}, {transposed, d}, d_queries, {.add = true});
      }
      d_alpha[static_cast<std::size_t>(h)] += static_cast<double>(1 - share) * of_other - static_cast<double>(share) * of_products;
    });
    *g.d_parameters.view<1>("alpha").data_handle() = static_cast<float>(std::accumulate(d_alpha.begin(), d_alpha.end(), 0.0));
  }

 private:
  // [H,...]
  std::span<const std::string_view> learned_tensors() const {
    static constexpr std::string_view random[] = {"R"}, dense[] = {"W1", "W2"};
    return o_.with == With::random ? std::span<const std::string_view>(random) : std::span<const std::string_view>(dense);
  }

  // What the two kinds of logits are multiplied by, for each row of a block.
  struct Shares {
    std::array<float, kernels::WeightedSum::max_rows> of_products, of_other;
    Shares(const ParameterSet<float>& parameters, const Problem& p) {
      const float share = 1 / (1 + std::exp(-*parameters["alpha"].data()));
      of_products.fill((1 - share) * static_cast<float>(p.scale()));
      of_other.fill(share);
    }
  };

  // Leaves the scaled queries and hidden layer of the block in the worker's scratch.
  kernels::Rows logits(const FloatArrays& a, const ParameterSet<float>& parameters, const Shares& shares,
                       const kernels::WeightBlock& block, const Workspace& workspace) const {
    const index_t rows = block.rows, d = p_.head_dim, h = block.head;
    const auto x = a.q[block.batch][h];
    const kernels::Rows queries{x.row(block.first), x.stride(0)};
    const kernels::Into scaled{workspace.of(block.worker, scratch_).data(), d};
    if (o_.with == With::random) {
      const auto table = parameters.view<3>("R")[h];
      kernels::scale_rows(rows, block.keys, {table.row(block.position), table.stride(0)}, shares.of_other.data(), block.to);
    } else {
      const auto w1 = parameters.view<3>("W1")[h], w2 = parameters.view<3>("W2")[h];
      const kernels::Into hidden{workspace.of(block.worker, hidden_).data(), d};
      kernels::gemm(rows, d, d, {queries.data, queries.stride}, {w1.data_handle(), d}, hidden);
      kernels::relu(rows, d, hidden, shares.of_other.data(), hidden);
      kernels::gemm(rows, block.keys, d, {hidden.data, d}, {w2.data_handle(), w2.stride(0)}, block.to);
    }
    kernels::scale_rows(rows, d, queries, shares.of_products.data(), scaled);
    const index_t kv_head = p_.kv_head(h);
    if (!transposes()) {
      const auto k = a.k[block.batch][kv_head];
      const kernels::Into products{workspace.of(block.worker, products_).data(), block.keys};
      for (index_t i = 0; i < rows; ++i) {
        kernels::row_dots(block.keys, d, {k.row(0), k.stride(0)}, scaled.data + i * d, products.data);
        kernels::add(1, block.keys, products, {block.to.data + i * block.to.stride, block.to.stride});
      }
      return block.to;
    }
    const float* keys = workspace.shared(keys_).data() + (block.batch * p_.kv_heads + kv_head) * d * p_.kv_len;
    kernels::gemm(rows, block.keys, d, {scaled.data, d}, {keys, p_.kv_len}, block.to, {.add = true});
    return block.to;
  }
  // So that keys are the right operand of a product: a pass over them that pays where several rows meet them.
  bool transposes() const { return p_.q_len >= 4; }

  // W1 and the first N columns of W2 of each head.
  void transpose_layers(const ParameterSet<float>& parameters, const Workspace& workspace) const {
    const index_t d = p_.head_dim, n = p_.kv_len;
    const auto w1 = parameters.view<3>("W1"), w2 = parameters.view<3>("W2");
    parallel_tasks(p_.heads, [&](index_t h, int) {
      float* to = workspace.shared(transposed_).data() + h * d * (d + n);
      kernels::transpose(d, d, {w1[h].row(0), d}, {to, d});
      kernels::transpose(d, n, {w2[h].row(0), w2.stride(1)}, {to + d * d, d});
    });
  }

  Problem p_;
  Options o_;
  Booking<float> keys_, products_, scratch_, hidden_, d_hidden_, transposed_;
  Booking<double> d_alpha_;
  kernels::WeightedSum engine_;
};
ATTN_VARIANT(synth_mixture, SynthMixture)

}  // namespace attn
