#include <cmath>
#include <vector>

#include "attn/algebra/recurrent.hpp"
#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/recurrence.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// gru: a recurrent layer, N vectors to N vectors, each head by itself.
//   (r, z) = sigmoid(x_t W + b + h U + c),  n = tanh(x_t Wn + bn + r * (h Un + cn)),  out_t = h_t = (1 - z) n + z h_(t-1)
//   Cho et al. 2014, arXiv:1406.1078, section 2.3, with r after the product as in cuDNN and PyTorch; W, U [H,D,3D], gates r, z, n
//   useful flops 12 N D^2 a head; no workspace that grows with N; token by token, so heads are all there is to run in parallel
// Looks back only, whether the problem is causal or not.
struct Gru {
  static VariantInfo info() {
    return {.title = "Gated recurrent unit",
            .formula = "h_t = (1 - z) n + z h_(t-1)",
            .paper = "Cho et al. 2014, arXiv:1406.1078, section 2.3",
            .cost_in_n = "N D^2",
            .fine_print =
                "r multiplies after the product, n = tanh(x Wn + bn + r (h Un + cn)), and there are two biases, "
                "as in cuDNN and PyTorch; the paper has r h in the product and no bias. Starts from zeros, and "
                "looks back only, causal or not.",
            .exactness = Exactness::different,
            .reads = Reads::x,
            .cross = false,
            .grouped_heads = true,
            .row_wise = false,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const NoOptions&) {
    const index_t h = p.heads, d = p.head_dim;
    const Init init = init::uniform(1 / std::sqrt(static_cast<double>(d)));
    const std::string columns = "heads, head_dim, 3 head_dim", row = "heads, 1, 3 head_dim";
    return {{.name = "W", .shape = {h, d, gates * d}, .init = init, .axes = columns, .doc = "x_t W; columns of r, z, n in turn"},
            {.name = "U", .shape = {h, d, gates * d}, .init = init, .axes = columns, .doc = "h_(t-1) U; likewise"},
            {.name = "b", .shape = {h, 1, gates * d}, .init = init, .axes = row, .doc = "added to x_t W"},
            {.name = "c", .shape = {h, 1, gates * d}, .init = init, .axes = row, .doc = "added to h_(t-1) U"}};
  }

  // Sigmoids and tanh count as exponentials.
  static Cost cost(const Problem& p, const NoOptions&) {
    const auto rows = static_cast<double>(p.batch * p.heads * p.q_len), d = static_cast<double>(p.head_dim);
    const double weights = gates * d * d;
    return {.flops = 4 * rows * weights,
            .bytes = q_bytes(p) + out_bytes(p) + 2 * sizeof(float) * static_cast<double>(p.heads) * weights,
            .exps = rows * d * 3};
  }

  static StateSpec state(const Problem& p, const NoOptions&) { return kernels::Recurrence::state(p, 1); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> inputs = matmul(in.x(), parameters["W"]) + parameters["b"];  // [B,H,N,gates D]
    Tensor<T> h = zeros<T>({p.batch, p.heads, 1, p.head_dim});
    std::vector<Tensor<T>> states;
    for (index_t t = 0; t < p.q_len; ++t) {
      h = gru_step(slice(inputs, 2, t, t + 1), h, parameters["U"], parameters["c"]);
      states.push_back(h);
    }
    return concat(states, 2);
  }

  Gru(const Problem& p, const NoOptions&, WorkspacePlan& workspace) : d_(p.head_dim), layer_(p, gates, 1, workspace) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    layer_.run(layer_arrays(a, parameters), workspace,
               [&](const float* x, float* own, float* h) { kernels::gru_gates(d_, x, own, h); });
  }
  void absorb(const FloatArrays& tokens, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    kernels::Recurrence::Arrays arrays = layer_arrays(tokens, parameters);
    arrays.out = {};
    layer_.absorb(arrays, state, workspace, [&](const float* x, float* own, float* h) { kernels::gru_gates(d_, x, own, h); });
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>&, const State& state, Workspace&) const {
    kernels::Recurrence::answer(state, queries.out);
  }

 private:
  static constexpr index_t gates = 3;

  static kernels::Recurrence::Arrays layer_arrays(const FloatArrays& a, const ParameterSet<float>& parameters) {
    return {a.x(), a.out, parameters.view<3>("W"), parameters.view<3>("U"), parameters["b"].data(), parameters["c"].data()};
  }

  index_t d_;
  kernels::Recurrence layer_;
};
ATTN_VARIANT(gru, Gru)

}  // namespace attn
