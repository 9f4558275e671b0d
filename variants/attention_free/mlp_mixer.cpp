#include <cmath>

#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// mlp_mixer: the token-mixing MLP of MLP-Mixer: each channel is mapped over positions by the same two matrices.
//   out = W2 gelu(W1 x + b1) + b2,  W1 [S,L], W2 [L,S], b1 [S], b2 [L], of which the first N positions count
//   Tolstikhin et al. 2021, arXiv:2105.01601, section 2, the first line of (1)
//   useful flops 4 N S D a head; workspace (S + N) D a head
// Norm, skip connection and the channel MLP belong to the block. All heads share W1 and W2, as all channels do in the paper. Every
// hidden unit sees all positions, so no causal form exists.
struct MlpMixer {
  struct Options {
    index_t hidden = 512;
    index_t max_len = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("hidden", &Options::hidden, 1, 65536, "hidden units S over positions")
        .integer("max_len", &Options::max_len, 0, unlimited, "positions that W1 and W2 hold, of which the first N are used; 0: N");
  }

  static VariantInfo info() {
    return {.title = "MLP-Mixer, token mixing",
            .formula = "out = W2 gelu(W1 x + b1) + b2",
            .paper = "Tolstikhin et al. 2021, arXiv:2105.01601, section 2",
            .cost_in_n = "N S D",
            .exactness = Exactness::different,
            .causality = Causality::never,
            .reads = Reads::x,
            .cross = false,
            .grouped_heads = true,
            .row_wise = false,
            .time_exponent = 1,
            .acausal = "W1 mixes all positions into hidden units that every position reads"};
  }

  // LeCun's normal, as in the authors' code.
  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t s = o.hidden, l = length(p, o);
    const auto lecun = [](index_t fan_in) { return init::normal(1 / std::sqrt(static_cast<double>(fan_in))); };
    return {{.name = "W1",
             .shape = {s, l},
             .init = lecun(l),
             .axes = "hidden, L",
             .doc = "W1 x: a row meets the tokens of a channel, in every head"},
            {.name = "b1", .shape = {s}, .init = init::zeros(), .axes = "hidden", .doc = "added to W1 x"},
            {.name = "W2", .shape = {l, s}, .init = lecun(s), .axes = "L, hidden", .doc = "W2 gelu(.): row t makes token t"},
            {.name = "b2", .shape = {l}, .init = init::zeros(), .axes = "L", .doc = "added to token t"}};
  }

  static Status supports(const Problem& p, const Options& o) { return within_learned(p, o.max_len); }

  static Cost cost(const Problem& p, const Options& o) {
    const auto channels = static_cast<double>(p.batch * p.heads * p.head_dim);
    const auto s = static_cast<double>(o.hidden), n = static_cast<double>(p.q_len);
    return {.flops = 4 * n * s * channels, .bytes = q_bytes(p) + out_bytes(p) + sizeof(float) * 2 * n * s, .exps = s * channels};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options&, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> w1 = slice(parameters["W1"], 1, 0, p.q_len), w2 = slice(parameters["W2"], 0, 0, p.q_len);
    const Tensor<T> b1 = unsqueeze(parameters["b1"], 1), b2 = unsqueeze(slice(parameters["b2"], 0, 0, p.q_len), 1);
    return matmul(w2, gelu(matmul(w1, in.x()) + b1)) + b2;
  }

  MlpMixer(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        hidden_(workspace.shared<float>(p.batch * p.heads * o.hidden * p.head_dim)),
        gather_(product(p, o.hidden, p.q_len), kernels::WeightedSum::Kind::table, kernels::WeightedSum::Sharing::all, workspace),
        spread_(product(p, p.q_len, o.hidden), kernels::WeightedSum::Kind::table, kernels::WeightedSum::Sharing::all, workspace) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const float *b1 = parameters["b1"].data(), *b2 = parameters["b2"].data();
    const auto w1 = parameters.view<2>("W1"), w2 = parameters.view<2>("W2");
    const auto table = [](const View<const float, 2>& w) {
      return [&w](const kernels::WeightBlock& block) { return kernels::Rows{w.row(block.first), w.stride(0)}; };
    };
    const View<float, 4> hidden(workspace.shared(hidden_).data(), {p_.batch, p_.heads, o_.hidden, p_.head_dim});
    gather_.run(a.x(), hidden, workspace, table(w1));
    each_head(hidden, [&](kernels::Into rows) { kernels::gelu(o_.hidden, p_.head_dim, rows, b1, rows); });
    spread_.run(hidden, a.out, workspace, table(w2));
    each_head(a.out, [&](kernels::Into rows) { kernels::add_to_rows(p_.q_len, p_.head_dim, rows, b2, rows); });
  }

 private:
  template <class F>
  void each_head(const View<float, 4>& x, F f) const {
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const auto head = x[task / p_.heads][task % p_.heads];
      f(kernels::Into{head.data_handle(), head.stride(0)});
    });
  }

  static Problem product(Problem p, index_t rows, index_t columns) {
    p.kv_heads = p.heads;  // of x
    p.q_len = rows;
    p.kv_len = columns;
    return p;
  }
  static index_t length(const Problem& p, const Options& o) { return o.max_len == 0 ? p.q_len : o.max_len; }

  Problem p_;
  Options o_;
  Booking<float> hidden_;
  kernels::WeightedSum gather_, spread_;
};
ATTN_VARIANT(mlp_mixer, MlpMixer)

}  // namespace attn
