#include <algorithm>
#include <array>
#include <cmath>

#include "attn/kernels/rows.hpp"
#include "attn/kernels/weighted_sum.hpp"
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
            .exactness = Exactness::different,
            .cross = false};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t h = p.heads, d = p.head_dim, l = o.max_len == 0 ? p.q_len : o.max_len;
    const ParameterSpec alpha{.name = "alpha", .shape = {1}, .init = init::zeros()};
    if (o.with == With::random) return {alpha, {.name = "R", .shape = {h, l, l}, .init = init::xavier_uniform(l, l)}};
    return {alpha,
            {.name = "W1", .shape = {h, d, d}, .init = init::xavier_uniform(d, d)},
            {.name = "W2", .shape = {h, d, l}, .init = init::xavier_uniform(d, l)}};
  }

  static Status supports(const Problem& p, const Options& o) { return within_learned(p, o.max_len); }

  static Cost cost(const Problem& p, const Options& o) {
    const double pairs = count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); });
    const auto heads = static_cast<double>(p.heads), all = heads * static_cast<double>(p.batch);
    const auto n = static_cast<double>(p.q_len), d = static_cast<double>(p.head_dim);
    Cost c = softmax_cost(p, pairs);
    if (o.with == With::dense) c.flops += all * (2 * pairs * d + 2 * n * d * d);
    c.bytes += sizeof(float) * heads * (o.with == With::random ? pairs : d * (d + n));
    return c;
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Inputs<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> share = sigmoid(parameters["alpha"]);
    const Tensor<T> products = matmul_transposed(in.q, in.k) * static_cast<T>(p.scale());
    const Indices rows({static_cast<index_t>(in.position.size())}, in.position);
    const Tensor<T> other =
        o.with == With::random ? take(parameters["R"], rows, 1) : matmul(relu(matmul(in.q, parameters["W1"])), parameters["W2"]);
    const Tensor<T> logits = (T{1} - share) * products + share * slice(other, -1, 0, p.kv_len);
    return matmul(softmax(logits, allowed_pairs(p, in, every_key)), in.v);
  }

  SynthMixture(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        keys_(workspace.shared<float>(p.batch * p.heads * p.head_dim * p.kv_len)),
        scratch_(workspace.per_worker<float>(kernels::WeightedSum::max_rows * p.head_dim)),
        engine_(p, kernels::WeightedSum::Kind::softmax, kernels::WeightedSum::Sharing::none, workspace) {}

  void run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out, Workspace& workspace) const {
    const View<float, 4> keys(workspace.shared(keys_).data(), {p_.batch, p_.heads, p_.head_dim, p_.kv_len});
    kernels::transpose_heads(in.k, keys);
    const float share = 1 / (1 + std::exp(-*parameters["alpha"].data()));
    std::array<float, kernels::WeightedSum::max_rows> of_products, of_other;
    of_products.fill((1 - share) * static_cast<float>(p_.scale()));
    of_other.fill(share);
    engine_.run(in.v, out, workspace, [&](const kernels::WeightBlock& block) -> kernels::Rows {
      const index_t rows = block.rows, d = p_.head_dim, h = block.head;
      const auto x = in.q[block.batch][h];
      const kernels::Rows queries{x.row(block.first), x.stride(0)};
      const kernels::Into scratch{workspace.of(block.worker, scratch_).data(), d};
      if (o_.with == With::random) {
        const auto table = parameters.view<3>("R")[h];
        kernels::scale_rows(rows, block.keys, {table.row(block.first), table.stride(0)}, of_other.data(), block.to);
      } else {
        const auto w1 = parameters.view<3>("W1")[h], w2 = parameters.view<3>("W2")[h];
        kernels::gemm(rows, d, d, {queries.data, queries.stride}, {w1.data_handle(), d}, scratch);
        kernels::relu(rows, d, scratch, of_other.data(), scratch);
        kernels::gemm(rows, block.keys, d, {scratch.data, d}, {w2.data_handle(), w2.stride(0)}, block.to);
      }
      kernels::scale_rows(rows, d, queries, of_products.data(), scratch);
      kernels::gemm(rows, block.keys, d, {scratch.data, d}, {keys[block.batch][h].data_handle(), p_.kv_len}, block.to,
                    {.add = true});
      return block.to;
    });
  }

 private:
  Problem p_;
  Options o_;
  Booking<float> keys_, scratch_;
  kernels::WeightedSum engine_;
};
ATTN_VARIANT(synth_mixture, SynthMixture)

}  // namespace attn
