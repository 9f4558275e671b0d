#include <algorithm>
#include <cmath>

#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/gated_state.hpp"
#include "attn/kernels/linear/gates.hpp"
#include "attn/variant/recurrent.hpp"

namespace attn {

// kda: the gated delta rule with a gate for each channel of the keys, as in Kimi Linear.
//   H = diag(g_t) S_(t-1),  S_t = H + k^_t (beta_t (v_t - H^T k^_t))^T,  out_t = s S_t^T q^_t,  x^ = x / sqrt(|x|^2 + 1e-6),  s = 1/sqrt(D)
//   g_t = e^(-A softplus(x_t)), or e^(-5 sigmoid(A x_t)) where bounded;  x_t = (k_t W) U + b, A = e^a_log;  beta_t = sigmoid(u.k_t + c)
//   Kimi Team 2025, arXiv:2510.26692, as in ops/kda of fla-org/flash-linear-attention. Gates are read from k_t for the token's state, or are arrays of the input.
//   useful flops 6 N D Dv + 4 N D rank, 3 N D exps; workspace a state of D Dv a worker
struct Kda {
  enum class Gate { learned, input };
  enum class Bound { none, five };
  struct Options {
    Gate gate = Gate::learned;
    Bound bound = Bound::none;
    index_t rank = 16;
    double half_life = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("gate", &Options::gate, {{"learned", Gate::learned}, {"input", Gate::input}},
                "of k by learned weights, or by arrays log_decay [B,Hk,M,D] and beta [B,Hk,M] of the input")
        .choice("bound", &Options::bound, {{"none", Bound::none}, {"five", Bound::five}}, "five: ln g_t is -5 times a sigmoid")
        .integer("rank", &Options::rank, 1, 256, "of the weights that make the gates")
        .number(
            "half_life", &Options::half_life, 0, kernels::longest_half_life,
            "tokens after which half of a channel is left at the start; 0: drawn as published, from half a token on (input: 64)");
  }

  static VariantInfo info() {
    return {
        .title = "Kimi delta attention",
        .formula = "H = diag(g_t) S_(t-1), S_t = H + k_t (beta_t (v_t - H^T k_t))^T, out_t = S_t^T q_t / sqrt(D), |q| = |k| = 1",
        .paper = "Kimi Team 2025, arXiv:2510.26692",
        .cost_in_n = "N D^2",
        .fine_print =
            "q and k are divided by sqrt(|x|^2 + 1e-6). g_t = e^(-e^a_log softplus((k_t W) U + b)). Without convolution, norm and "
            "output gate. "
            "Arrays log_decay [B,Hk,M,D] and beta [B,Hk,M] are ln g_t <= 0 and beta_t.",
        .exactness = Exactness::different,
        .causality = Causality::always,
        .grouped_heads = true,
        .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    if (o.gate == Gate::input) return {};
    const bool published = o.half_life == 0;
    const double log_gate = published ? 0 : kernels::log_gate_of(o.half_life);
    Init bias = init::small_steps();
    if (!published)
      bias = init::constant(o.bound == Bound::five ? kernels::logit_of_gate(std::log(-log_gate / 5))
                                                   : kernels::inverse_softplus(-log_gate));
    Parameters list{{.name = "a_log",
                     .shape = {p.kv_heads},
                     .init = published ? init::log_uniform(1, 16) : init::zeros(),
                     .axes = "kv_heads",
                     .doc = "how fast the gates forget, as a logarithm"}};
    add_low_rank(p, "gate", o.rank, std::move(bias), "g_t = e^(-e^a_log softplus((k_t gate_in) gate_out + gate_b))", list);
    list.push_back({.name = "beta_w",
                    .shape = {p.kv_heads, p.head_dim},
                    .init = init::normal(1 / std::sqrt(static_cast<double>(p.head_dim))),
                    .axes = "kv_heads, head_dim",
                    .doc = "reads a token for its beta"});
    list.push_back({.name = "beta_b",
                    .shape = {p.kv_heads},
                    .init = init::zeros(),
                    .axes = "kv_heads",
                    .doc = "beta_t = sigmoid(beta_w.k_t + beta_b)"});
    return list;
  }

  static std::vector<InputSpec> inputs(const Problem& p, const Options& o) {
    if (o.gate != Gate::input) return {};
    return {log_decay_input({p.batch, p.kv_heads, p.kv_len, p.head_dim}, o.half_life == 0 ? 64 : std::max(1.0, o.half_life),
                            "each channel"),
            {.name = "beta",
             .extents = {p.batch, p.kv_heads, p.kv_len},
             .low = 0,
             .high = 1,
             .drawn = [](double normal) { return 1 / (1 + std::exp(-normal)); },
             .doc = "beta_t: how far the state is corrected"}};
  }

  static Cost cost(const Problem& p, const Options& o) {
    Cost cost = state_cost(p, 3);
    const double gates = static_cast<double>(p.batch * p.kv_heads * p.kv_len * p.head_dim);
    if (o.gate == Gate::learned) cost.flops += low_rank_flops(p, o.rank);
    cost.exps = o.gate == Gate::learned ? 3 * gates : gates;
    return cost;
  }

  static constexpr kernels::GatedState::Form form = {.gate = kernels::GatedState::Gate::vector,
                                                     .write = kernels::GatedState::Write::delta};
  static StateSpec state(const Problem& p, const Options&) { return kernels::GatedState::state(p, form); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> k = unit(in.k), q = unit(in.q) * static_cast<T>(p.scale());
    const bool given = o.gate == Gate::input;
    const Tensor<T> gate = exp(given ? in["log_decay"] : log_gates(o, in, parameters));
    const Tensor<T> beta = given ? in["beta"] : sigmoid(read_from_keys(in, parameters["beta_w"], parameters["beta_b"]));
    return answers_of_state(p, in, q, [&](index_t t, const Tensor<T>& state) {
      const Tensor<T> key = token(k, t), faded = transpose(token(gate, t)) * state;
      return faded + transpose(key) * (token(beta, t) * (token(in.v, t) - matmul(key, faded)));
    });
  }

  Kda(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), o_(o), engine_(p, form, workspace), hidden_(workspace.per_worker<float>(kernels::gated_panel * o.rank)) {}

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

  template <class T>
  static Tensor<T> unit(const Tensor<T>& x) {
    return x / sqrt(sum(square(x), -1, Keep::yes) + static_cast<T>(1e-6));
  }
  template <class T>
  static Tensor<T> log_gates(const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> x = low_rank(in, parameters, "gate"), rate = unsqueeze(unsqueeze(exp(parameters["a_log"]), 1), 2);
    return o.bound == Bound::five ? sigmoid(rate * x) * T{-5} : -rate * softplus(x);
  }

  template <class F>
  void with_maps(const Arrays& a, const ParameterSet<float>& parameters, const Workspace& workspace, F f) const {
    const auto tokens = [&](const Engine::Tokens& t) {
      kernels::unit_rows(t.count, p_.head_dim, t.keys, t.key);
      if (o_.gate == Gate::input)
        given_gates(a, t);
      else
        learned_gates(parameters, workspace, t);
      return kernels::Rows(t.key);
    };
    const auto queries = [&](const Engine::Queries& q) {
      kernels::unit_factors(q.count, p_.head_dim, q.rows, static_cast<float>(p_.scale()), q.factor);
    };
    f(Engine::Maps{tokens, queries, Engine::no_own});
  }
  void given_gates(const Arrays& a, const Engine::Tokens& t) const {
    const auto log_decay = a.more["log_decay"].f32<4>()[t.batch][t.head];
    const auto beta = a.more["beta"].f32<3>()[t.batch][t.head];
    kernels::exp_of_gates(t.count, p_.head_dim, {log_decay.row(t.row), log_decay.stride(0)}, 1, t.gate);
    for (index_t i = 0; i < t.count; ++i) t.beta[i] = beta(t.row + i);
  }
  void learned_gates(const ParameterSet<float>& parameters, const Workspace& workspace, const Engine::Tokens& t) const {
    const index_t d = p_.head_dim;
    const kernels::LowRank by = low_rank_of(parameters, "gate_in", "gate_out", "gate_b", t.head);
    kernels::project(t.count, d, t.keys, by, workspace.of(t.worker, hidden_).data(), t.gate);
    const float rate = std::exp(parameters["a_log"](t.head));
    if (o_.bound == Bound::five) {
      kernels::sigmoid(t.count, d, t.gate, rate, 0, t.gate);
      kernels::exp_of_gates(t.count, d, t.gate, -5, t.gate);
    } else {
      kernels::decays_of_softplus(t.count, d, t.gate, 1, rate, t.gate);
    }
    kernels::row_dots(t.count, d, t.keys, parameters["beta_w"].data() + t.head * d, t.beta);
    kernels::sigmoid(1, t.count, {t.beta, t.count}, 1, parameters["beta_b"](t.head), {t.beta, t.count});
  }

  Problem p_;
  Options o_;
  Engine engine_;
  Booking<float> hidden_;
};
ATTN_VARIANT(kda, Kda)

}  // namespace attn
