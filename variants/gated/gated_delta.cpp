#include <algorithm>
#include <cmath>

#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/delta_backward.hpp"
#include "attn/kernels/linear/gated_backward.hpp"
#include "attn/kernels/linear/gated_state.hpp"
#include "attn/kernels/linear/gates.hpp"
#include "attn/variant/recurrent.hpp"

namespace attn {

// gated_delta: a state that is corrected towards v_t at key k_t, after it has faded; without the gate, DeltaNet.
//   H = g_t S_(t-1),  S_t = H + k^_t (beta_t (v_t - H^T k^_t))^T,  out_t = s S_t^T q^_t,  x^ = x / sqrt(|x|^2 + 1e-6),  s = 1/sqrt(D)
//   g_t = e^(-A softplus(w.k_t + b)), A = e^a_log;  beta_t = sigmoid(u.k_t + c), twice that where negative eigenvalues are wanted
//   Yang et al. 2024, arXiv:2412.06464; arXiv:2406.06484 without a gate. Gates are read from k_t for the token's state, or are arrays of the
//   input. Short convolution, SiLU, norm and output gate are the layer's.
//   useful flops 6 N D Dv, 3 N exps; workspace a state of D Dv a worker
struct GatedDelta {
  enum class Gate { yes, no, input };
  struct Options {
    Gate gate = Gate::yes;
    bool negative = false;
    double half_life = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("gate", &Options::gate, {{"yes", Gate::yes}, {"no", Gate::no}, {"input", Gate::input}},
                "fade: by a learned gate, not at all (DeltaNet), or by array log_decay; input: beta is an array too")
        .flag("negative", &Options::negative, "beta in 0..2: states may be reflected, not only erased")
        .number(
            "half_life", &Options::half_life, 0, kernels::longest_half_life,
            "tokens after which half of the state is left at the start; 0: drawn as published, from half a token on (input: 64)");
  }

  static VariantInfo info() {
    return {.title = "Gated DeltaNet",
            .formula = "H = g_t S_(t-1), S_t = H + k_t (beta_t (v_t - H^T k_t))^T, out_t = S_t^T q_t / sqrt(D), |q| = |k| = 1",
            .paper = "Yang et al. 2024, arXiv:2412.06464",
            .cost_in_n = "N D^2",
            .fine_print =
                "q and k are divided by sqrt(|x|^2 + 1e-6). g_t = e^(-e^a_log softplus(w.k_t + b)). Without convolution, norm and "
                "output gate. "
                "Arrays log_decay and beta [B,Hk,M] are ln g_t <= 0 and beta_t.",
            .exactness = Exactness::different,
            .causality = Causality::always,
            .grouped_heads = true,
            .in_default_sweep = true,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    const Shape head = {p.kv_heads}, row = {p.kv_heads, p.head_dim};
    const Init weights = init::normal(1 / std::sqrt(static_cast<double>(p.head_dim)));
    Parameters list;
    if (o.gate == Gate::yes) {
      const bool published = o.half_life == 0;
      list.push_back({.name = "a_log",
                      .shape = head,
                      .init = published ? init::log_uniform(1e-3, 16) : init::zeros(),
                      .axes = "kv_heads",
                      .doc = "how fast the gate forgets, as a logarithm"});
      list.push_back(
          {.name = "gate_w", .shape = row, .init = weights, .axes = "kv_heads, head_dim", .doc = "reads a token for its gate"});
      list.push_back(
          {.name = "gate_b",
           .shape = head,
           .init = published ? init::small_steps() : init::constant(kernels::inverse_softplus(-kernels::log_gate_of(o.half_life))),
           .axes = "kv_heads",
           .doc = "g_t = e^(-e^a_log softplus(gate_w.k_t + gate_b))"});
    }
    if (o.gate != Gate::input) {
      list.push_back(
          {.name = "beta_w", .shape = row, .init = weights, .axes = "kv_heads, head_dim", .doc = "reads a token for its beta"});
      list.push_back({.name = "beta_b",
                      .shape = head,
                      .init = init::zeros(),
                      .axes = "kv_heads",
                      .doc = "beta_t = sigmoid(beta_w.k_t + beta_b), or twice that"});
    }
    return list;
  }

  static std::vector<InputSpec> inputs(const Problem& p, const Options& o) {
    if (o.gate != Gate::input) return {};
    return {log_decay_input({p.batch, p.kv_heads, p.kv_len}, o.half_life == 0 ? 64 : std::max(1.0, o.half_life), "the state"),
            {.name = "beta",
             .extents = {p.batch, p.kv_heads, p.kv_len},
             .low = 0,
             .high = largest_beta(o),
             .drawn = o.negative ? +[](double normal) { return 2 / (1 + std::exp(-normal)); }
                                 : +[](double normal) { return 1 / (1 + std::exp(-normal)); },
             .doc = "beta_t: how far the state is corrected"}};
  }

  static Cost cost(const Problem& p, const Options& o) {
    Cost cost = state_cost(p, 3);
    const double keys = static_cast<double>(p.batch * p.kv_heads * p.kv_len);
    cost.exps = o.gate == Gate::input ? keys : o.gate == Gate::no ? keys : 3 * keys;
    return cost;
  }

  static constexpr kernels::GatedState::Form form = {.write = kernels::GatedState::Write::delta};
  static StateSpec state(const Problem& p, const Options&) { return kernels::GatedState::state(p, form); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> k = unit(in.k), q = unit(in.q) * static_cast<T>(p.scale());
    const auto read = [&](const char* w, const char* b) { return read_from_keys(in, parameters[w], parameters[b]); };
    const Tensor<T> beta = o.gate == Gate::input ? in["beta"] : sigmoid(read("beta_w", "beta_b")) * static_cast<T>(largest_beta(o));
    Tensor<T> gate = ones<T>({p.batch, p.kv_heads, p.kv_len});
    if (o.gate == Gate::input) gate = exp(in["log_decay"]);
    if (o.gate == Gate::yes) gate = exp(-unsqueeze(exp(parameters["a_log"]), 1) * softplus(read("gate_w", "gate_b")));
    return answers_of_state(p, in, q, [&](index_t t, const Tensor<T>& state) {
      const Tensor<T> key = token(k, t), faded = token(gate, t) * state;
      return faded + transpose(key) * (token(beta, t) * (token(in.v, t) - matmul(key, faded)));
    });
  }

  static Status supports_backward(const Problem& p, const Options&) { return kernels::GatedBackward::supports(p); }

  GatedDelta(const Problem& p, const Options& o, WorkspacePlan& workspace)
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
  void backward(const Arrays& a, const ParameterSet<float>& parameters, const Gradients& g, Workspace& workspace) const {
    const auto of_tokens = backward_.of_tokens(workspace);
    const View<const float, 4> k = a.k.f32();
    parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) {
      const index_t b = task / p_.heads, h = task % p_.heads;
      gates(a, parameters,
            {.batch = b,
             .head = h,
             .row = 0,
             .count = p_.kv_len,
             .keys = {k[b][h].row(0), k.stride(2)},
             .key = {},
             .read = {},
             .add = {},
             .gate = {},
             .log_gate = &of_tokens.log_gate(b, h, 0),
             .beta = &of_tokens.beta(b, h, 0),
             .worker = worker});
    });
    backward_.run(a, g, static_cast<float>(p_.scale()), workspace);
    if (o_.gate == Gate::input) return;
    const auto pull = [&](const View<float, 3>& d_x, const char* w, const char* b) {
      kernels::GatedBackward::pull(k, d_x, {parameters.view<2>(w), g.d_parameters.view<2>(w), g.d_parameters.view<1>(b)},
                                   g.d_k.f32_out());
    };
    const auto largest = static_cast<float>(largest_beta(o_));
    for (index_t i = 0; i < of_tokens.beta.size(); ++i) {
      const float beta = of_tokens.beta.data_handle()[i];
      of_tokens.d_beta.data_handle()[i] *= beta * (1 - beta / largest);
    }
    pull(of_tokens.d_beta, "beta_w", "beta_b");
    if (o_.gate == Gate::no) return;
    // ln g = -A softplus(x); the slope of softplus is 1 - e^-softplus.
    const View<float, 1> d_a_log = g.d_parameters.view<1>("a_log");
    for (index_t h = 0; h < p_.heads; ++h) {
      const float rate = std::exp(parameters["a_log"](h));
      double sum = 0;
      for (index_t b = 0; b < p_.batch; ++b) {
        for (index_t t = 0; t < p_.kv_len; ++t) {
          float& d_x = of_tokens.d_log_gate(b, h, t);
          const float log_gate = of_tokens.log_gate(b, h, t);
          sum += static_cast<double>(d_x) * static_cast<double>(log_gate);
          d_x *= rate > 0 ? rate * std::expm1(log_gate / rate) : 0;
        }
      }
      d_a_log(h) = static_cast<float>(sum);
    }
    pull(of_tokens.d_log_gate, "gate_w", "gate_b");
  }

 private:
  using Engine = kernels::GatedState;

  static double largest_beta(const Options& o) { return o.negative ? 2 : 1; }

  template <class T>
  static Tensor<T> unit(const Tensor<T>& x) {
    return x / sqrt(sum(square(x), -1, Keep::yes) + static_cast<T>(1e-6));
  }

  template <class F>
  void with_maps(const Arrays& a, const ParameterSet<float>& parameters, F f) const {
    const auto tokens = [&](const Engine::Tokens& t) {
      kernels::unit_rows(t.count, p_.head_dim, t.keys, t.key);
      gates(a, parameters, t);
      return kernels::Rows(t.key);
    };
    const auto queries = [&](const Engine::Queries& q) {
      kernels::unit_factors(q.count, p_.head_dim, q.rows, static_cast<float>(p_.scale()), q.factor);
    };
    f(Engine::Maps{tokens, queries, Engine::no_own});
  }
  void gates(const Arrays& a, const ParameterSet<float>& parameters, const Engine::Tokens& t) const {
    std::fill_n(t.log_gate, t.count, 0.0f);
    if (o_.gate == Gate::input) {
      const auto log_decay = a.more["log_decay"].f32<3>()[t.batch][t.head], beta = a.more["beta"].f32<3>()[t.batch][t.head];
      for (index_t i = 0; i < t.count; ++i) t.log_gate[i] = log_decay(t.row + i), t.beta[i] = beta(t.row + i);
      return;
    }
    const auto read = [&](const char* w, const char* b, float* to) {
      kernels::row_dots(t.count, p_.head_dim, t.keys, parameters[w].data() + t.head * p_.head_dim, to);
      const float bias = parameters[b](t.head);
      for (index_t i = 0; i < t.count; ++i) to[i] += bias;
    };
    read("beta_w", "beta_b", t.beta);
    kernels::sigmoid(1, t.count, {t.beta, t.count}, 1, 0, {t.beta, t.count});
    for (index_t i = 0; i < t.count; ++i) t.beta[i] *= static_cast<float>(largest_beta(o_));
    if (o_.gate == Gate::no) return;
    read("gate_w", "gate_b", t.log_gate);
    kernels::softplus(1, t.count, {t.log_gate, t.count}, 1, {t.log_gate, t.count});
    const float rate = -std::exp(parameters["a_log"](t.head));
    for (index_t i = 0; i < t.count; ++i) t.log_gate[i] *= rate;
  }

  Problem p_;
  Options o_;
  Engine engine_;
  kernels::DeltaBackward backward_;
};
ATTN_VARIANT(gated_delta, GatedDelta)

}  // namespace attn
