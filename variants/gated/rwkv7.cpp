#include <algorithm>
#include <cmath>

#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/gated_state.hpp"
#include "attn/kernels/linear/gates.hpp"
#include "attn/variant/recurrent.hpp"

namespace attn {

// rwkv7: a state that is faded by channel and rid of what it holds at another key than the one that is written.
//   S_t = diag(w_t) S_(t-1) - (c_t * a_t) (S_(t-1)^T c_t)^T + k~_t v_t^T,  out_t = S_t^T q_t + (q_t.(k~_t * r)) v_t
//   c = unit vector of k * k_k,  k~ = k * (1 + (a - 1) * k_a),  w = e^(-e^(-1/2) sigmoid((k W) U + b)),  a = sigmoid((k W') U' + b')
//   Peng et al. 2025, arXiv:2503.14456; what is removed is read before the state fades. There w and a read the layer's input, here k_t for it,
//   or they are arrays of the input. Token shift, norm and output gate are the layer's.
//   useful flops 8 N D Dv + 8 N D rank, 3 N D exps; no factor 1/sqrt(D); workspace a state of D Dv a worker
struct Rwkv7 {
  enum class Gate { learned, input };
  struct Options {
    Gate gate = Gate::learned;
    index_t rank = 16;
    double half_life = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("gate", &Options::gate, {{"learned", Gate::learned}, {"input", Gate::input}},
                "of k by learned weights, or by arrays log_decay and a [B,Hk,M,D] of the input")
        .integer("rank", &Options::rank, 1, 256, "of the weights that make the gates")
        .number("half_life", &Options::half_life, 0, kernels::longest_half_life,
                "tokens after which half of a channel is left at the start; 0: from 460 tokens in the first channel to 3 in the "
                "last (input: 64)");
  }

  static VariantInfo info() {
    return {
        .title = "RWKV-7",
        .formula = "S_t = diag(w_t) S_(t-1) - (c_t * a_t) (S_(t-1)^T c_t)^T + k~_t v_t^T, out_t = S_t^T q_t + (q_t.(k~_t * r)) v_t",
        .paper = "Peng et al. 2025, arXiv:2503.14456",
        .cost_in_n = "N D^2",
        .fine_print =
            "c = k * k_k / max(|k * k_k|, 1e-12), k~ = k * (1 + (a - 1) * k_a), w = e^(-e^(-1/2) sigmoid((k W) U + b)), a likewise "
            "a sigmoid. "
            "Without token shift, norm and output gate. Arrays log_decay and a [B,Hk,M,D] are ln w_t <= 0 and a_t.",
        .exactness = Exactness::different,
        .causality = Causality::always,
        .grouped_heads = true,
        .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const Shape row = {p.kv_heads, p.head_dim};
    const index_t d = p.head_dim;
    // f(channel's place from 0 to 1)
    const auto by_channel = [d](auto f) -> Init {
      return [=](std::span<float> values, const Shape&, const Rng&) {
        for (std::size_t i = 0; i < values.size(); ++i)
          values[i] = static_cast<float>(
              f(static_cast<double>(static_cast<index_t>(i) % d) / static_cast<double>(std::max<index_t>(1, d - 1))));
      };
    };
    Parameters list{{.name = "k_k",
                     .shape = row,
                     .init = by_channel([](double x) { return 0.71 - 0.1 * (x - 0.5); }),
                     .axes = "kv_heads, head_dim",
                     .doc = "factors of the key that the state is rid of, channel by channel"},
                    {.name = "k_a",
                     .shape = row,
                     .init = init::constant(1.02),
                     .axes = "kv_heads, head_dim",
                     .doc = "how far a_t tempers the key that is written"},
                    {.name = "r",
                     .shape = row,
                     .init = init::constant(-0.04),
                     .axes = "kv_heads, head_dim",
                     .doc = "weighs a token for the output that it sees of itself"}};
    if (o.gate == Gate::input) return list;
    Init bias = by_channel([](double x) { return -6 + 6 * x + 0.5; });
    if (o.half_life > 0) bias = init::constant(kernels::logit_of_gate(std::log(-kernels::log_gate_of(o.half_life) / most_decay)));
    add_low_rank(p, "w", o.rank, std::move(bias), "w_t = e^(-e^(-1/2) sigmoid((k_t w_in) w_out + w_b))", list);
    add_low_rank(p, "a", o.rank, init::zeros(), "a_t = sigmoid((k_t a_in) a_out + a_b)", list);
    return list;
  }

  static std::vector<InputSpec> inputs(const Problem& p, const Options& o) {
    if (o.gate != Gate::input) return {};
    const std::vector<index_t> extents = {p.batch, p.kv_heads, p.kv_len, p.head_dim};
    return {log_decay_input(extents, o.half_life == 0 ? 64 : o.half_life, "each channel", "w"),
            {.name = "a",
             .extents = extents,
             .low = 0,
             .high = 1,
             .drawn = [](double normal) { return 1 / (1 + std::exp(-normal)); },
             .doc = "a_t: how far a channel is rid of what it held"}};
  }

  static Status supports(const Problem&, const Options& o) {
    if (o.half_life == 0 || o.half_life >= 2) return {};
    return refuse("cannot fade faster than to 0.55 a token: half_life=" + format_number(o.half_life) +
                  ", accepted: 0, or 2 and more");
  }

  static Cost cost(const Problem& p, const Options& o) {
    Cost cost = state_cost(p, 4);
    cost.flops += 2 * static_cast<double>(p.batch * p.heads * p.q_len * (p.head_dim + p.value_dim));
    const double gates = static_cast<double>(p.batch * p.kv_heads * p.kv_len * p.head_dim);
    if (o.gate == Gate::learned) cost.flops += 2 * low_rank_flops(p, o.rank);
    cost.exps = o.gate == Gate::learned ? 3 * gates : gates;
    return cost;
  }

  static constexpr kernels::GatedState::Form form = {
      .gate = kernels::GatedState::Gate::vector, .write = kernels::GatedState::Write::rank_one, .own_token = true};
  static StateSpec state(const Problem& p, const Options&) { return kernels::GatedState::state(p, form); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const auto per_token = [&](const char* name) { return unsqueeze(parameters[name], 1); };  // [Hk,1,D]
    const bool given = o.gate == Gate::input;
    const Tensor<T> w = exp(given ? in["log_decay"] : sigmoid(low_rank(in, parameters, "w")) * static_cast<T>(-most_decay));
    const Tensor<T> a = given ? in["a"] : sigmoid(low_rank(in, parameters, "a"));
    const Tensor<T> c = l2_normalize(in.k * per_token("k_k")), written = in.k * (T{1} + (a - T{1}) * per_token("k_a"));
    const auto step = [&](index_t t, const Tensor<T>& state) {
      const Tensor<T> held = matmul(token(c, t), state);
      return transpose(token(w, t)) * state - transpose(token(c * a, t)) * held + transpose(token(written, t)) * token(in.v, t);
    };
    return answers_of_state(p, in, in.q, step, [&](const Tensor<T>& q, const Tensor<T>& state, index_t t) {
      return matmul(q, state) + sum(q * token(written, t) * per_token("r"), -1, Keep::yes) * token(in.v, t);
    });
  }

  Rwkv7(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        engine_(p, form, workspace),
        hidden_(workspace.per_worker<float>(kernels::gated_panel * (o.rank + p.head_dim))) {}

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    with_maps(a, parameters, workspace, [&](const auto& maps) { engine_.run(a, workspace, maps); });
  }
  void absorb(const Arrays& tokens, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    with_maps(tokens, parameters, workspace, [&](const auto& maps) { engine_.absorb(tokens, state, workspace, maps); });
  }
  void answer(const Arrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    with_maps(queries, parameters, workspace, [&](const auto& maps) { engine_.answer(queries, state, workspace, maps); });
  }

 private:
  using Engine = kernels::GatedState;
  static constexpr double most_decay = 0.60653065971263342;  // e^(-1/2)

  template <class F>
  void with_maps(const Arrays& a, const ParameterSet<float>& parameters, const Workspace& workspace, F f) const {
    const auto tokens = [&](const Engine::Tokens& t) {
      float* const hidden = workspace.of(t.worker, hidden_).data();
      const kernels::Into rate{hidden + kernels::gated_panel * o_.rank, p_.head_dim};
      gates(a, parameters, t, hidden, rate);
      const float *const k_k = parameters["k_k"].data() + t.head * p_.head_dim, *const k_a =
                                                                                    parameters["k_a"].data() + t.head * p_.head_dim;
      kernels::removal_rows(t.count, p_.head_dim, t.keys, rate, k_k, k_a, {t.key, t.read, t.add});
      return kernels::Rows(t.key);
    };
    const auto queries = [&](const Engine::Queries& q) { std::fill_n(q.factor, q.count, 1.0f); };
    const auto own = [&](const Engine::Own& x) {
      kernels::triple_dots(x.count, p_.head_dim, x.queries, x.keys, parameters["r"].data() + x.kv_head * p_.head_dim, x.weight);
    };
    f(Engine::Maps{tokens, queries, own});
  }

  // w of the tokens into their gates, a into `rate`.
  void gates(const Arrays& arrays, const ParameterSet<float>& parameters, const Engine::Tokens& t, float* hidden,
             kernels::Into rate) const {
    const index_t d = p_.head_dim;
    if (o_.gate == Gate::input) {
      const auto log_decay = arrays.more["log_decay"].f32<4>()[t.batch][t.head], a = arrays.more["a"].f32<4>()[t.batch][t.head];
      kernels::exp_of_gates(t.count, d, {log_decay.row(t.row), log_decay.stride(0)}, 1, t.gate);
      return kernels::copy(t.count, d, {a.row(t.row), a.stride(0)}, rate);
    }
    const auto sigmoid_of = [&](const char* in, const char* out, const char* bias, kernels::Into to) {
      const kernels::LowRank by = low_rank_of(parameters, in, out, bias, t.head);
      kernels::project(t.count, d, t.keys, by, hidden, to);
      kernels::sigmoid(t.count, d, to, 1, 0, to);
    };
    sigmoid_of("w_in", "w_out", "w_b", t.gate);
    kernels::exp_of_gates(t.count, d, t.gate, static_cast<float>(-most_decay), t.gate);
    sigmoid_of("a_in", "a_out", "a_b", rate);
  }

  Problem p_;
  Options o_;
  Engine engine_;
  Booking<float> hidden_;
};
ATTN_VARIANT(rwkv7, Rwkv7)

}  // namespace attn
