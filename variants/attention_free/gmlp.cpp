#include <algorithm>

#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/dense/weighted_sum.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// gmlp: the spatial gating unit of gMLP: one half of the channels, mixed over positions by a learned matrix, gates the other.
//   out = v * (W norm(x) + b),  W [L,L] and b [L], of which the first N count;  W lower triangular when causal
//   Liu et al. 2021, arXiv:2105.08050, section 2.1. The paper's halves Z1, Z2 are v and x; norm is over the channels of a head,
//   without gain and bias; all heads share W, as all channels do in the paper. The two channel projections belong to the layer.
//   useful flops 2 N^2 D a head, half when causal; workspace N D a head, and when causal some rows of W a worker
struct Gmlp {
  struct Options {
    index_t max_len = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("max_len", &Options::max_len, 0, 65536,
                                          "rows and columns of W, of which the first N are used; 0: N");
  }

  static VariantInfo info() {
    return {.title = "gMLP, spatial gating unit",
            .formula = "out = v * (W norm(x) + b)",
            .paper = "Liu et al. 2021, arXiv:2105.08050, section 2.1",
            .cost_in_n = "N^2 D",
            .fine_print =
                "norm is over the channels of a head, (x - mean) / sqrt(variance + 1e-5), without gain and "
                "bias. x and v are the paper's halves of the channels.",
            .exactness = Exactness::different,
            .reads = Reads::xv,
            .cross = false,
            .grouped_heads = true,
            .row_wise = false};
  }

  // W near zero and b = 1: the unit starts as v.
  static Parameters parameters(const Problem& p, const Options& o) {
    const index_t l = length(p, o);
    return {{.name = "W",
             .shape = {l, l},
             .init = init::uniform(1e-3 / static_cast<double>(l)),
             .axes = "L, L",
             .doc = "W[t, j]: row t makes the gate of token t, in every head; later j are not read when causal"},
            {.name = "b", .shape = {l}, .init = init::constant(1), .axes = "L", .doc = "of token t, in every head"}};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (p.head_dim != p.value_dim) return refuse("gates v by x channel by channel and needs value_dim equal to head_dim");
    return within_learned(p, o.max_len);
  }

  static Cost cost(const Problem& p, const Options&) {
    const double pairs = count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); });
    const auto channels = static_cast<double>(p.batch * p.heads * p.head_dim);
    // The tokens, or of a step their norms in the state; the values of its own tokens; the output.
    const double tokens = p.pass == Pass::decode ? sizeof(float) * channels * static_cast<double>(p.kv_len) : q_bytes(p);
    const auto values = static_cast<double>(p.batch * p.kv_heads * p.q_len * bytes_of(p.kv_dtype, p.value_dim));
    return {.flops = 2 * channels * pairs, .bytes = tokens + values + out_bytes(p) + sizeof(float) * pairs};
  }

  // norm(x) of all tokens, and the last v.
  static StateSpec state(const Problem& p, const Options&) {
    return {.tensors = {{.name = "normalised", .extents = {p.heads, p.kv_len, p.head_dim}},
                        {.name = "v", .extents = {p.kv_heads, p.value_dim}}},
            .updated = false};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options&, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> square = slice(slice(parameters["W"], 0, 0, p.q_len), 1, 0, p.q_len);
    const Tensor<T> bias = unsqueeze(slice(parameters["b"], 0, 0, p.q_len), 1);
    return per_query_head(p, in.v) * (matmul(p.causal ? tril(square) : square, layer_norm(in.x())) + bias);
  }

  Gmlp(const Problem& p, const Options&, WorkspacePlan& workspace)
      : p_(p),
        normalised_(workspace.shared<float>(p.batch * p.heads * p.q_len * p.head_dim)),
        mixed_(workspace.shared<float>(p.batch * p.heads * p.q_len * p.head_dim)),
        engine_(by_x(p), p.causal ? kernels::WeightedSum::Kind::weights : kernels::WeightedSum::Kind::table,
                kernels::WeightedSum::Sharing::all, workspace) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const auto w = parameters.view<2>("W");
    const float* bias = parameters["b"].data();
    const index_t n = p_.q_len, d = p_.head_dim, heads = p_.batch * p_.heads;
    const View<float, 4> normalised(workspace.shared(normalised_).data(), {p_.batch, p_.heads, n, d});
    const View<float, 4> mixed(workspace.shared(mixed_).data(), {p_.batch, p_.heads, n, d});
    parallel_tasks(heads, [&](index_t task, int) {
      const auto x = a.x()[task / p_.heads][task % p_.heads];
      kernels::layer_norm(n, d, {x.data_handle(), x.stride(0)}, 1e-5f,
                          {normalised[task / p_.heads][task % p_.heads].data_handle(), d});
    });
    engine_.run(normalised, mixed, workspace, [&](const kernels::WeightBlock& block) -> kernels::Rows {
      const kernels::Rows rows{w.row(block.first), w.stride(0)};
      if (!p_.causal) return rows;
      kernels::copy(block.rows, block.keys, rows, block.to);
      return block.to;
    });
    parallel_tasks(heads, [&](index_t task, int) {
      const auto v = a.v[task / p_.heads][p_.kv_head(task % p_.heads)];
      const auto to = a.out[task / p_.heads][task % p_.heads];
      kernels::gate(n, d, {mixed[task / p_.heads][task % p_.heads].data_handle(), d}, bias, {v.data_handle(), v.stride(0)},
                    {to.data_handle(), to.stride(0)});
    });
  }

  void absorb(const FloatArrays& tokens, const ParameterSet<float>&, const State& state, Workspace&) const {
    const auto normalised = state["normalised"].f32_out<4>();
    const auto last = state["v"].f32_out<3>();
    const index_t count = tokens.x().extent(2), d = p_.head_dim;
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const auto x = tokens.x()[task / p_.heads][task % p_.heads];
      kernels::layer_norm(count, d, {x.data_handle(), x.stride(0)}, 1e-5f,
                          {normalised[task / p_.heads][task % p_.heads].row(state.end()), d});
    });
    for (index_t b = 0; b < p_.batch; ++b)
      for (index_t h = 0; h < p_.kv_heads; ++h) std::copy_n(tokens.v[b][h].row(count - 1), p_.value_dim, last[b].row(h));
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    const auto normalised = state["normalised"].f32<4>();
    const auto last = state["v"].f32<3>();
    const index_t t = state.end() - 1, d = p_.head_dim;
    const float* const w = parameters.view<2>("W").row(t);
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
      const index_t b = task / p_.heads, h = task % p_.heads;
      const kernels::Into mixed{workspace.shared(mixed_).data() + task * d, d};
      kernels::gemm(1, d, t + 1, {w, t + 1}, {normalised[b][h].row(0), d}, mixed);
      kernels::gate(1, d, mixed, parameters["b"].data() + t, {last[b].row(p_.kv_head(h)), d}, {queries.out[b][h].row(0), d});
    });
  }

 private:
  // What is summed is x, of which every head has its own.
  static Problem by_x(Problem p) { return p.kv_heads = p.heads, p; }
  static index_t length(const Problem& p, const Options& o) { return o.max_len == 0 ? p.kv_len : o.max_len; }

  Problem p_;
  Booking<float> normalised_, mixed_;
  kernels::WeightedSum engine_;
};
ATTN_VARIANT(gmlp, Gmlp)

}  // namespace attn
