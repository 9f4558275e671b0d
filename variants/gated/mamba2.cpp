#include <algorithm>
#include <cmath>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/gated_backward.hpp"
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
                      .axes = "kv_heads, head_dim",
                      .doc = "reads a token for its step"});
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

  static Status supports_backward(const Problem& p, const Options&) { return kernels::GatedBackward::supports(p); }

  Mamba2(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), o_(o), engine_(p, form(o), workspace), backward_(p, workspace) {}

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
    const auto rate = [&](index_t h) { return std::exp(parameters["a_log"](h)); };
    const auto each = [&](auto f) {
      parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) { f(task / p_.heads, task % p_.heads); });
    };
    each([&](index_t b, index_t h) {
      float* const step = &of_tokens.weight(b, h, 0);
      steps(a, parameters, b, h, 0, p_.q_len, step);
      for (index_t t = 0; t < p_.q_len; ++t) of_tokens.log_gate(b, h, t) = -rate(h) * step[t];
    });
    backward_.run(a, g, 1, workspace);
    // ln g = -A d, and d weighs the token; the slope of softplus is 1 - e^-softplus.
    const View<float, 1> d_a_log = g.d_parameters.view<1>("a_log");
    for (index_t h = 0; h < p_.heads; ++h) {
      double sum = 0;
      for (index_t b = 0; b < p_.batch; ++b)
        for (index_t t = 0; t < p_.q_len; ++t)
          sum += static_cast<double>(of_tokens.d_log_gate(b, h, t)) * static_cast<double>(of_tokens.log_gate(b, h, t));
      d_a_log(h) = static_cast<float>(sum);
    }
    if (o_.skip) pull_skip(a, parameters, g);
    if (o_.dt != Step::learned) return;
    each([&](index_t b, index_t h) {
      for (index_t t = 0; t < p_.q_len; ++t) {
        const float d_step = of_tokens.d_weight(b, h, t) - rate(h) * of_tokens.d_log_gate(b, h, t);
        of_tokens.d_weight(b, h, t) = d_step * -std::expm1(-of_tokens.weight(b, h, t));
      }
    });
    kernels::GatedBackward::pull(a.k.f32(), of_tokens.d_weight,
                                 {parameters.view<2>("dt_w"), g.d_parameters.view<2>("dt_w"), g.d_parameters.view<1>("dt_b")},
                                 g.d_k.f32_out());
  }

 private:
  using Engine = kernels::GatedState;
  static Engine::Form form(const Options& o) { return {.own_token = o.skip}; }

  template <class F>
  void with_maps(const Arrays& a, const ParameterSet<float>& parameters, F f) const {
    const auto tokens = [&](const Engine::Tokens& t) {
      float* const step = t.log_gate;
      steps(a, parameters, t.batch, t.head, t.row, t.count, step);
      kernels::scale_rows(t.count, p_.head_dim, t.keys, step, t.key);
      const float rate = -std::exp(parameters["a_log"](t.head));
      for (index_t i = 0; i < t.count; ++i) t.log_gate[i] = rate * step[i];
      return kernels::Rows(t.key);
    };
    const auto queries = [&](const Engine::Queries& q) { std::fill_n(q.factor, q.count, 1.0f); };
    const auto own = [&](const Engine::Own& x) { std::fill_n(x.weight, x.count, parameters["skip"](x.head)); };
    f(Engine::Maps{tokens, queries, own});
  }

  void steps(const Arrays& a, const ParameterSet<float>& parameters, index_t batch, index_t head, index_t first, index_t count,
             float* step) const {
    if (o_.dt == Step::input) {
      const auto given = a.more["dt"].f32<3>()[batch][head];
      for (index_t i = 0; i < count; ++i) step[i] = given(first + i);
      return;
    }
    const View<const float, 4> k = a.k.f32();
    kernels::row_dots(count, p_.head_dim, {k[batch][head].row(first), k.stride(2)}, parameters["dt_w"].data() + head * p_.head_dim,
                      step);
    const float bias = parameters["dt_b"](head);
    for (index_t i = 0; i < count; ++i) step[i] += bias;
    kernels::softplus(1, count, {step, count}, 1, {step, count});
  }

  // out_t += skip v_t: on to the values and the skip of each head.
  void pull_skip(const Arrays& a, const ParameterSet<float>& parameters, const Gradients& g) const {
    const View<const float, 4> v = a.v.f32(), d_out = g.d_out.f32();
    const View<float, 4> d_v = g.d_v.f32_out();
    const View<float, 1> d_skip = g.d_parameters.view<1>("skip");
    parallel_tasks(p_.heads, [&](index_t h, int) {
      double sum = 0;
      for (index_t b = 0; b < p_.batch; ++b) {
        for (index_t t = 0; t < p_.q_len; ++t) {
          float product = 0;
          kernels::row_dots(1, p_.value_dim, {d_out[b][h].row(t), p_.value_dim}, v[b][h].row(t), &product);
          sum += static_cast<double>(product);
          kernels::add(1, p_.value_dim, {d_out[b][h].row(t), p_.value_dim}, {d_v[b][h].row(t), p_.value_dim},
                       parameters["skip"](h));
        }
      }
      d_skip(h) = static_cast<float>(sum);
    });
  }

  Problem p_;
  Options o_;
  Engine engine_;
  kernels::GatedBackward backward_;
};
ATTN_VARIANT(mamba2, Mamba2)

}  // namespace attn
