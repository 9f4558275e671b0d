#include <cmath>
#include <vector>

#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/recurrence.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// lstm: a recurrent layer with a memory cell, N vectors to N vectors, each head by itself.
//   (i, f, g, o) = x_t W + b + h U + c;  m = sigmoid(f) m + sigmoid(i) tanh(g),  out_t = h_t = sigmoid(o) tanh(m)
//   Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000; W, U [H,D,4D] and two biases, as in PyTorch
//   useful flops 16 N D^2 a head; no workspace that grows with N; token by token, so heads are all there is to run in parallel
// Looks back only, whether the problem is causal or not.
struct Lstm {
  static VariantInfo info() {
    return {.title = "Long short-term memory",
            .formula = "c = f c + i g, out_t = o tanh(c)",
            .paper = "Hochreiter & Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735",
            .cost_in_n = "N D^2",
            .fine_print =
                "All of i, f and o are sigmoids, g is a tanh. f is the forget gate of Gers et al. 2000, which "
                "the paper does not have; two biases, as in PyTorch. Starts from zeros, and looks back only, "
                "causal or not.",
            .exactness = Exactness::different,
            .reads = Reads::x,
            .cross = false,
            .row_wise = false,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const NoOptions&) {
    const index_t h = p.heads, d = p.head_dim;
    const Init init = init::uniform(1 / std::sqrt(static_cast<double>(d)));
    const std::string columns = "heads, head_dim, 4 head_dim", row = "heads, 1, 4 head_dim";
    return {{.name = "W", .shape = {h, d, gates * d}, .init = init, .axes = columns, .doc = "x_t W; columns of i, f, g, o in turn"},
            {.name = "U", .shape = {h, d, gates * d}, .init = init, .axes = columns, .doc = "h_(t-1) U; likewise"},
            {.name = "b", .shape = {h, 1, gates * d}, .init = init, .axes = row, .doc = "added to x_t W"},
            {.name = "c", .shape = {h, 1, gates * d}, .init = init, .axes = row, .doc = "added to h_(t-1) U"}};
  }

  // Sigmoids and tanh count as exponentials.
  static Cost cost(const Problem& p, const NoOptions&) {
    const auto rows = static_cast<double>(p.batch * p.heads * p.q_len), d = static_cast<double>(p.head_dim);
    const double weights = gates * d * d;
    return {.flops = 4 * rows * weights,
            .bytes = sizeof(float) * (2 * rows * d + 2 * static_cast<double>(p.heads) * weights),
            .exps = rows * d * 5};
  }

  static StateSpec state(const Problem& p, const NoOptions&) { return kernels::Recurrence::state(p, 2); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>& parameters) {
    const index_t d = p.head_dim;
    const Tensor<T> inputs = matmul(in.x(), parameters["W"]) + parameters["b"];  // [B,H,N,gates D]
    Tensor<T> h = zeros<T>({p.batch, p.heads, 1, d}), memory = h;
    std::vector<Tensor<T>> states;
    for (index_t t = 0; t < p.q_len; ++t) {
      const Tensor<T> all = slice(inputs, 2, t, t + 1) + matmul(h, parameters["U"]) + parameters["c"];
      const std::vector<Tensor<T>> gate = split_at(all, -1, {d, d, d, d});  // i, f, g, o
      memory = sigmoid(gate[1]) * memory + sigmoid(gate[0]) * tanh(gate[2]);
      h = sigmoid(gate[3]) * tanh(memory);
      states.push_back(h);
    }
    return concat(states, 2);
  }

  Lstm(const Problem& p, const NoOptions&, WorkspacePlan& workspace) : d_(p.head_dim), layer_(p, gates, 2, workspace) {}

  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    layer_.run(layer_arrays(a, parameters), workspace, [&](const float* x, float* own, float* state) { step(x, own, state); });
  }
  void absorb(const FloatArrays& tokens, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    kernels::Recurrence::Arrays arrays = layer_arrays(tokens, parameters);
    arrays.out = {};
    layer_.absorb(arrays, state, workspace, [&](const float* x, float* own, float* h) { step(x, own, h); });
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>&, const State& state, Workspace&) const {
    kernels::Recurrence::answer(state, queries.out);
  }

 private:
  static constexpr index_t gates = 4;

  static kernels::Recurrence::Arrays layer_arrays(const FloatArrays& a, const ParameterSet<float>& parameters) {
    return {a.x(), a.out, parameters.view<3>("W"), parameters.view<3>("U"), parameters["b"].data(), parameters["c"].data()};
  }

  // After h comes the memory.
  void step(const float* x, const float* own, float* h) const { kernels::lstm_gates(d_, x, own, h, h + d_); }

  index_t d_;
  kernels::Recurrence layer_;
};
ATTN_VARIANT(lstm, Lstm)

}  // namespace attn
