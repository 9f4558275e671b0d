#include <algorithm>
#include <cmath>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/gated_state.hpp"
#include "attn/kernels/linear/gates.hpp"
#include "attn/variant/recurrent.hpp"

namespace attn {

// mamba2: the state space of Mamba-2, a scalar gate a head and token, with C, B and x in the places of q, k and v.
//   S_t = e^(-d_t A) S_(t-1) + d_t k_t v_t^T,  out_t = S_t^T q_t + skip v_t,  d_t = softplus(w.k_t + b),  A = e^a_log
//   Dao & Gu 2024, arXiv:2405.21060; short convolution, SiLU, norm and output gate are the layer's. d is read from k_t for the token's
//   state, or is array dt of the input.
//   useful flops 4 N D Dv + 2 N Dv, 2 N exps; no factor 1/sqrt(D); workspace a state of D Dv a worker
struct Mamba2 {
  enum class Step { learned, input };
  struct Options {
    Step dt = Step::learned;
    bool skip = true;
    double half_life = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("dt", &Options::dt, {{"learned", Step::learned}, {"input", Step::input}},
                "the step: of k by learned weights, or array dt [B,Hk,M] of the input")
        .flag("skip", &Options::skip, "add a multiple of v_t for each head")
        .number(
            "half_life", &Options::half_life, 0, kernels::longest_half_life,
            "tokens after which half of the state is left at the start; 0: A in 1..16 and steps in 0.001..0.1, drawn as published");
  }

  static VariantInfo info() {
    return {.title = "Mamba-2",
            .formula = "S_t = e^(-d_t A) S_(t-1) + d_t k_t v_t^T, out_t = S_t^T q_t + skip v_t, d_t = softplus(w.k_t + b)",
            .paper = "Dao & Gu 2024, arXiv:2405.21060",
            .cost_in_n = "N D^2",
            .fine_print =
                "q, k and v are what the paper calls C, B and x; each head has its own. Without convolution, norm and output gate. "
                "Array dt [B,Hk,M] is the step, at least 0.",
            .exactness = Exactness::different,
            .causality = Causality::always,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const bool published = o.half_life == 0;
    Parameters list{{.name = "a_log",
                     .shape = {p.kv_heads},
                     .init = published ? init::log_uniform(1, 16) : init::zeros(),
                     .axes = "kv_heads",
                     .doc = "the state fades by e^(-d_t e^a_log)"}};
    if (o.dt == Step::learned) {
      list.push_back({.name = "dt_w",
                      .shape = {p.kv_heads, p.head_dim},
                      .init = init::normal(1 / std::sqrt(static_cast<double>(p.head_dim))),
                      .axes = "kv_heads, head_dim"});
      list.push_back(
          {.name = "dt_b",
           .shape = {p.kv_heads},
           .init = published ? init::small_steps() : init::constant(kernels::inverse_softplus(std::log(2.0) / o.half_life)),
           .axes = "kv_heads",
           .doc = "d_t = softplus(dt_w.k_t + dt_b)"});
    }
    if (o.skip)
      list.push_back({.name = "skip", .shape = {p.heads}, .init = init::constant(1), .axes = "heads", .doc = "out_t += skip v_t"});
    return list;
  }

  static std::vector<InputSpec> inputs(const Problem& p, const Options& o) {
    if (o.dt != Step::input) return {};
    return {{.name = "dt",
             .extents = {p.batch, p.kv_heads, p.kv_len},
             .low = 0,
             .high = 1e30,
             .drawn = [](double normal) { return 0.01 * std::exp(normal); },
             .doc = "d_t: the step of token t, by which it is weighed and the state fades"}};
  }

  static Cost cost(const Problem& p, const Options& o) {
    Cost cost = state_cost(p, 2);
    if (o.skip) cost.flops += 2 * static_cast<double>(p.batch * p.heads * p.q_len * p.value_dim);
    cost.exps = 2 * static_cast<double>(p.batch * p.kv_heads * p.kv_len);
    return cost;
  }

  static StateSpec state(const Problem& p, const Options& o) { return kernels::GatedState::state(p, form(o)); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> step = o.dt == Step::input ? in["dt"] : softplus(read_from_keys(in, parameters["dt_w"], parameters["dt_b"]));
    const Tensor<T> log_gate = -step * unsqueeze(exp(parameters["a_log"]), 1);
    const Tensor<T> kept = kept_between(p, in, log_gate) * unsqueeze(step, 2);
    Tensor<T> weights = matmul_transposed(in.q, per_query_head(p, in.k)) * per_query_head(p, kept);
    if (o.skip) {
      const Mask own = mask({static_cast<index_t>(in.position.size()), p.kv_len},
                            [&](index_t row, index_t j) { return in.position[static_cast<std::size_t>(row)] == j; });
      weights = weights + where(own, unsqueeze(unsqueeze(parameters["skip"], 1), 2), T{0});
    }
    return matmul(weights, per_query_head(p, in.v));
  }

  Mamba2(const Problem& p, const Options& o, WorkspacePlan& workspace) : p_(p), o_(o), engine_(p, form(o), workspace) {}

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

 private:
  using Engine = kernels::GatedState;
  static Engine::Form form(const Options& o) { return {.own_token = o.skip}; }

  template <class F>
  void with_maps(const Arrays& a, const ParameterSet<float>& parameters, F f) const {
    const auto tokens = [&](const Engine::Tokens& t) {
      float* const step = t.log_gate;
      if (o_.dt == Step::input) {
        const auto given = a.more["dt"].f32<3>()[t.batch][t.head];
        for (index_t i = 0; i < t.count; ++i) step[i] = given(t.row + i);
      } else {
        kernels::row_dots(t.count, p_.head_dim, t.keys, parameters["dt_w"].data() + t.head * p_.head_dim, step);
        for (index_t i = 0; i < t.count; ++i) step[i] += parameters["dt_b"](t.head);
        kernels::softplus(t.count, step, step);
      }
      kernels::scale_rows(t.count, p_.head_dim, t.keys, step, t.key);
      const float rate = -std::exp(parameters["a_log"](t.head));
      for (index_t i = 0; i < t.count; ++i) t.log_gate[i] = rate * step[i];
    };
    const auto queries = [&](const Engine::Queries& q) { kernels::copy(q.count, p_.head_dim, q.from, q.to); };
    const auto own = [&](const Engine::Own& x) { std::fill_n(x.weight, x.count, parameters["skip"](x.head)); };
    f(Engine::Maps{tokens, queries, own});
  }

  Problem p_;
  Options o_;
  Engine engine_;
};
ATTN_VARIANT(mamba2, Mamba2)

}  // namespace attn
