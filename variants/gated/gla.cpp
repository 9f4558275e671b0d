#include <array>
#include <cmath>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/gated_state.hpp"
#include "attn/kernels/linear/gates.hpp"
#include "attn/variant/recurrent.hpp"

namespace attn {

// gla: gated linear attention, a gate for each channel of the keys.
//   S_t = diag(g_t) S_(t-1) + k_t v_t^T,  out_t = s S_t^T q_t,  g_t = sigmoid((k_t W) U + b)^(1/tau),  s = 1/sqrt(D)
//   Yang et al. 2023, arXiv:2312.06635; there the gate reads the layer's input, here k_t for it, or it is an array of the input.
//   key=complement: 1 - g_t in the place of k_t, as in HGRN2, Qin et al. 2024, arXiv:2404.07904
//   useful flops 4 N D Dv + 4 N D rank, 3 N D exps; workspace a state of D Dv a worker
struct Gla {
  enum class Key { own, complement };
  enum class Gate { learned, input };
  struct Options {
    Gate gate = Gate::learned;
    Key key = Key::own;
    index_t rank = 16;
    double tau = 16, half_life = 64;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("gate", &Options::gate, {{"learned", Gate::learned}, {"input", Gate::input}},
                "of k by learned weights, or by array log_decay [B,Hk,M,D] of the input")
        .choice("key", &Options::key, {{"own", Key::own}, {"complement", Key::complement}}, "what is written: k, or 1 - g")
        .integer("rank", &Options::rank, 1, 256, "of the weights that make the gates")
        .number("tau", &Options::tau, 1, 1024, "gates are sigmoids to the power of 1/tau")
        .number("half_life", &Options::half_life, 1, kernels::longest_half_life,
                "tokens after which half of a channel is left, at the start or where no file has the array");
  }

  static VariantInfo info() {
    return {
        .title = "Gated linear attention",
        .formula = "S_t = diag(g_t) S_(t-1) + k_t v_t^T, out_t = S_t^T q_t / sqrt(D), g_t = sigmoid((k_t W) U + b)^(1/tau)",
        .paper = "Yang et al. 2023, arXiv:2312.06635",
        .cost_in_n = "N D^2",
        .fine_print = "Gates read k_t. Without the layer's norm and gate of the output. Array log_decay [B,Hk,M,D] is ln g_t <= 0.",
        .exactness = Exactness::different,
        .causality = Causality::always,
        .grouped_heads = true,
        .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    Parameters list;
    if (o.gate == Gate::learned)
      add_low_rank(p, "gate", o.rank, init::constant(kernels::logit_of_gate(o.tau * kernels::log_gate_of(o.half_life))),
                   "g_t = sigmoid((k_t gate_in) gate_out + gate_b)^(1/tau)", list);
    return list;
  }

  static std::vector<InputSpec> inputs(const Problem& p, const Options& o) {
    if (o.gate != Gate::input) return {};
    return {log_decay_input({p.batch, p.kv_heads, p.kv_len, p.head_dim}, o.half_life, "each channel")};
  }

  static Cost cost(const Problem& p, const Options& o) {
    Cost cost = state_cost(p, 2);
    const double gates = static_cast<double>(p.batch * p.kv_heads * p.kv_len * p.head_dim);
    if (o.gate == Gate::learned) cost.flops += low_rank_flops(p, o.rank);
    cost.exps = o.gate == Gate::learned ? 3 * gates : gates;
    return cost;
  }

  static constexpr kernels::GatedState::Form form = {.gate = kernels::GatedState::Gate::vector};
  static StateSpec state(const Problem& p, const Options&) { return kernels::GatedState::state(p, form); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> gate =
        exp(o.gate == Gate::input ? in["log_decay"] : -softplus(-low_rank(in, parameters, "gate")) / static_cast<T>(o.tau));
    const Tensor<T> k = o.key == Key::own ? in.k : T{1} - gate;
    return answers_of_state(p, in, in.q * static_cast<T>(p.scale()), [&](index_t t, const Tensor<T>& state) {
      return transpose(token(gate, t)) * state + transpose(token(k, t)) * token(in.v, t);
    });
  }

  Gla(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), o_(o), engine_(p, form, workspace), hidden_(workspace.per_worker<float>(kernels::gated_panel * o.rank)) {
    per_tau_.fill(static_cast<float>(-1 / o.tau));
  }

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    with_maps(a, parameters, workspace, [&](const auto& maps) { engine_.run(a, workspace, maps); });
  }
  void absorb(const Arrays& tokens, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    with_maps(tokens, parameters, workspace, [&](const auto& maps) { engine_.absorb(tokens, state, workspace, maps); });
  }
  void answer(const Arrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    with_maps(queries, parameters, workspace, [&](const auto& maps) { engine_.answer(queries, state, workspace, maps); });
  }
  void merge(State& into, const State& later) const { kernels::GatedState::merge(into, later); }

 private:
  using Engine = kernels::GatedState;

  template <class F>
  void with_maps(const Arrays& a, const ParameterSet<float>& parameters, const Workspace& workspace, F f) const {
    const auto tokens = [&](const Engine::Tokens& t) {
      // ln g, to which both what is kept and what is written owe their digits.
      const kernels::Rows log_gate = log_gates(a, parameters, workspace, t);
      if (o_.key == Key::complement) kernels::rest_of_gates(t.count, p_.head_dim, log_gate, 1, t.key);
      kernels::exp_of_gates(t.count, p_.head_dim, log_gate, 1, t.gate);
      return o_.key == Key::own ? t.keys : kernels::Rows(t.key);
    };
    const auto queries = [&](const Engine::Queries& q) { std::fill_n(q.factor, q.count, static_cast<float>(p_.scale())); };
    f(Engine::Maps{tokens, queries, Engine::no_own});
  }
  kernels::Rows log_gates(const Arrays& a, const ParameterSet<float>& parameters, const Workspace& workspace,
                          const Engine::Tokens& t) const {
    const index_t d = p_.head_dim;
    if (o_.gate == Gate::input) {
      const auto given = a.more["log_decay"].f32<4>()[t.batch][t.head];
      return {given.row(t.row), given.stride(0)};
    }
    const kernels::LowRank by = low_rank_of(parameters, "gate_in", "gate_out", "gate_b", t.head);
    kernels::project(t.count, d, t.keys, by, workspace.of(t.worker, hidden_).data(), t.gate);
    kernels::softplus(t.count, d, t.gate, -1, t.gate);
    kernels::scale_rows(t.count, d, t.gate, per_tau_.data(), t.gate);
    return t.gate;
  }

  Problem p_;
  Options o_;
  Engine engine_;
  Booking<float> hidden_;
  std::array<float, kernels::gated_panel> per_tau_;
};
ATTN_VARIANT(gla, Gla)

}  // namespace attn
