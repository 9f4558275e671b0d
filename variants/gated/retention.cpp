#include <algorithm>
#include <cmath>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/gated_backward.hpp"
#include "attn/kernels/linear/gated_state.hpp"
#include "attn/kernels/linear/gates.hpp"
#include "attn/variant/recurrent.hpp"

namespace attn {

// retention: linear attention without feature maps and denominators, whose weights fade with the distance.
//   out_i = s sum_{j<=i} g_(j+1) .. g_i (q_i.k_j) v_j,  s = 1/sqrt(D); or S_t = g_t S_(t-1) + k_t v_t^T, out_t = s S_t^T q_t
//   retnet:  g = 1 - 2^(-5-h) for head h, Sun et al. 2023, arXiv:2307.08621
//   slopes:  g = e^(-2^(-8(h+1)/H)), as in lightning attention, Qin et al. 2024, arXiv:2401.04658
//   learned: g_t = sigmoid(w.k_t + b);  input: ln g_t is an array of the input
//   Rotation, gates of the output and its norm are the layer's, not the mixer's. Heads of keys have the decays.
//   useful flops 4 N D Dv, no exps where g is fixed, else N; workspace a state of D Dv a worker
struct Retention {
  enum class Decay { retnet, slopes, learned, input };
  struct Options {
    Decay decay = Decay::retnet;
    double half_life = 64;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("decay", &Options::decay,
                {{"retnet", Decay::retnet}, {"slopes", Decay::slopes}, {"learned", Decay::learned}, {"input", Decay::input}},
                "what a token leaves of the state: fixed for a head, learned, or array log_decay [B,Hk,M] of the input")
        .number("half_life", &Options::half_life, 1, kernels::longest_half_life,
                "learned, input: tokens after which half is left, at the start or where no file has the array");
  }

  static VariantInfo info() {
    return {.title = "Retention",
            .formula = "out_i = sum_{j<=i} g_(j+1)..g_i (q_i.k_j) v_j / sqrt(D), g = 1 - 2^(-5-h)",
            .paper = "Sun et al. 2023, arXiv:2307.08621",
            .cost_in_n = "N D^2",
            .fine_print =
                "Without the layer's rotation of q and k, norm and gate of the output. Array log_decay [B,Hk,M] is ln g_t <= 0.",
            .exactness = Exactness::different,
            .causality = Causality::always,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    if (o.decay != Decay::learned) return {};
    return learned_gate(p.kv_heads, "kv_heads", p.head_dim, o.half_life);
  }

  static std::vector<InputSpec> inputs(const Problem& p, const Options& o) {
    if (o.decay != Decay::input) return {};
    return {log_decay_input({p.batch, p.kv_heads, p.kv_len}, o.half_life, "the state")};
  }

  static Cost cost(const Problem& p, const Options& o) {
    Cost cost = state_cost(p, 2);
    if (o.decay == Decay::learned || o.decay == Decay::input) cost.exps = static_cast<double>(p.batch * p.kv_heads * p.kv_len);
    return cost;
  }

  static constexpr kernels::GatedState::Form form = {};
  static StateSpec state(const Problem& p, const Options&) { return kernels::GatedState::state(p, form); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> products = matmul_transposed(in.q, per_query_head(p, in.k)) * static_cast<T>(p.scale());
    const Tensor<T> weights = products * per_query_head(p, kept(p, o, in, parameters));
    return matmul(weights, per_query_head(p, in.v));
  }

  static Status supports_backward(const Problem& p, const Options&) { return kernels::GatedBackward::supports(p); }

  Retention(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), o_(o), engine_(p, form, workspace), backward_(p, workspace) {}

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    with_maps(a, parameters, [&](const auto& maps) { engine_.run(a, workspace, maps); });
  }
  void absorb(const Arrays& tokens, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    with_maps(tokens, parameters, [&](const auto& maps) { engine_.absorb(tokens, state, workspace, maps); });
  }
  void answer(const Arrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    with_maps(queries, parameters, [&](const auto& maps) { engine_.answer(queries, state, workspace, maps); });
  }
  void merge(State& into, const State& later) const { kernels::GatedState::merge(into, later); }
  void backward(const Arrays& a, const ParameterSet<float>& parameters, const Gradients& g, Workspace& workspace) const {
    const auto of_tokens = backward_.of_tokens(workspace);
    const View<const float, 4> k = a.k.f32();
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) {
      const index_t b = task / p_.heads, h = task % p_.heads;
      std::fill_n(&of_tokens.weight(b, h, 0), p_.q_len, 1.0f);
      for (index_t t = 0; t < p_.q_len; t += kernels::gated_panel) {
        const index_t count = std::min(kernels::gated_panel, p_.q_len - t);
        log_gates(a, parameters,
                  {b, h, t, count, {k[b][h].row(t), k.stride(2)}, {}, {}, {}, {}, &of_tokens.log_gate(b, h, t), nullptr, worker});
      }
    });
    backward_.run(a, g, static_cast<float>(p_.scale()), workspace);
    if (o_.decay != Decay::learned) return;
    // ln g = -softplus(-x), whose slope is 1 - g.
    for (index_t i = 0; i < of_tokens.log_gate.size(); ++i)
      of_tokens.d_log_gate.data_handle()[i] *= -std::expm1(of_tokens.log_gate.data_handle()[i]);
    kernels::GatedBackward::pull(k, of_tokens.d_log_gate,
                                 {parameters.view<2>("gate_w"), g.d_parameters.view<2>("gate_w"), g.d_parameters.view<1>("gate_b")},
                                 g.d_k.f32_out());
  }

 private:
  using Engine = kernels::GatedState;

  static double fixed_log_gate(const Problem& p, Decay decay, index_t head) {
    if (decay == Decay::retnet) return std::log1p(-std::exp2(static_cast<double>(-5 - head)));
    return -std::exp2(-8.0 * static_cast<double>(head + 1) / static_cast<double>(p.kv_heads));
  }

  // [B or none,Hk,rows,M], zeros for keys that are not seen.
  template <class T>
  static Tensor<T> kept(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    if (o.decay == Decay::input) return kept_between(p, in, in["log_decay"]);
    if (o.decay == Decay::learned) {
      return kept_between(p, in, -softplus(-read_from_keys(in, parameters["gate_w"], parameters["gate_b"])));
    }
    return tabulate<T>({1, p.kv_heads, static_cast<index_t>(in.position.size()), p.kv_len},
                       [&](index_t, index_t h, index_t row, index_t j) {
                         const index_t distance = in.position[static_cast<std::size_t>(row)] - j;
                         return distance < 0 ? 0.0 : std::exp(static_cast<double>(distance) * fixed_log_gate(p, o.decay, h));
                       });
  }

  template <class F>
  void with_maps(const Arrays& a, const ParameterSet<float>& parameters, F f) const {
    const auto tokens = [&](const Engine::Tokens& t) {
      log_gates(a, parameters, t);
      return t.keys;
    };
    const auto queries = [&](const Engine::Queries& q) { std::fill_n(q.factor, q.count, static_cast<float>(p_.scale())); };
    f(Engine::Maps{tokens, queries, Engine::no_own});
  }
  void log_gates(const Arrays& a, const ParameterSet<float>& parameters, const Engine::Tokens& t) const {
    if (o_.decay == Decay::input) {
      const auto given = a.more["log_decay"].f32<3>()[t.batch][t.head];
      for (index_t i = 0; i < t.count; ++i) t.log_gate[i] = given(t.row + i);
    } else if (o_.decay == Decay::learned) {
      kernels::row_dots(t.count, p_.head_dim, t.keys, parameters["gate_w"].data() + t.head * p_.head_dim, t.log_gate);
      const float bias = parameters["gate_b"](t.head);
      for (index_t i = 0; i < t.count; ++i) t.log_gate[i] += bias;
      kernels::softplus(1, t.count, {t.log_gate, t.count}, -1, {t.log_gate, t.count});
      for (index_t i = 0; i < t.count; ++i) t.log_gate[i] = -t.log_gate[i];
    } else {
      std::fill_n(t.log_gate, t.count, static_cast<float>(fixed_log_gate(p_, o_.decay, t.head)));
    }
  }

  Problem p_;
  Options o_;
  Engine engine_;
  kernels::GatedBackward backward_;
};
ATTN_VARIANT(retention, Retention)

}  // namespace attn
