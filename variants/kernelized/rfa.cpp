#include <algorithm>
#include <cmath>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/linear_attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// rfa: exp(q.k / tau^2) of unit queries and keys by random Fourier features, which may be negative; optionally with a gate that
// forgets.
//   out_i = sum_j w_ij v_j / n_i,  w_ij = phi(q_i).phi(k_j),  phi(x) = a [sin(W x^), cos(W x^)],  x^ = x / (|x| + 1e-3);
//   j <= i when causal;  W = w sigma / tau, w ~ N(0, 1), sigma learned for each head; query heads that share a kv head have its sigma
//   and its gate.
//   no gate: a = 0.1, n_i = max(sum_j w_ij, 1) when causal, else max(|sum_j w_ij|, 1), as in Noahs-ARK/RFA
//   gate:    S_t = g_t S_(t-1) + (1 - g_t) phi(k_t) v_t, and so n, g_t = sigmoid(w_g.k_t + b_g); a = 1/sqrt(m), n_i = max(.., 0.1),
//            which are ours: the paper names no guard. The gate reads k_t for the token's state,
//            or is an array of the input (gate=input): replayed from a model, where the input has it.
//   Peng et al. 2021, arXiv:2103.02143, sections 3.1 and 3.2
//   useful flops 4 N D m + 8 N m Dv, 4 N m sines; workspace a state of 2 m (Dv + 1) a worker
struct Rfa {
  using Engine = kernels::LinearAttention;

  enum class Gate { no, yes, input };
  struct Options {
    index_t m = 64;
    double tau = 1;
    Gate gate = Gate::no;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("m", &Options::m, 1, 65536, "random frequencies; features are twice as many")
        .budget()
        .number("tau", &Options::tau, 1e-3, 1e3, "temperature: the kernel is exp(q^.k^ / tau^2)")
        .choice("gate", &Options::gate, {{"no", Gate::no}, {"yes", Gate::yes}, {"input", Gate::input}},
                "forget by a learned gate, or by array gate [B,H,M] of the input; causal only");
  }

  static VariantInfo info() {
    return {.title = "Random feature attention",
            .formula = "out_i = sum_j w_ij v_j / sum_j w_ij, w_ij = phi(q_i).phi(k_j), phi(x) = a [sin(W x/|x|), cos(W x/|x|)]",
            .paper = "Peng et al. 2021, arXiv:2103.02143, section 3.1",
            .cost_in_n = "N m D",
            .exactness = Exactness::approximation,
            .grouped_heads = true,
            .randomised = true,
            .time_exponent = 1};
  }

  static Parameters parameters(const Problem& p, const Options& o) {
    Parameters list{{.name = "w",
                     .shape = {o.m, p.head_dim},
                     .init = init::normal(1),
                     .trainable = false,
                     .axes = "m, head_dim",
                     .doc = "rows w_i of the features, shared by all heads"},
                    {.name = "sigma",
                     .shape = {p.kv_heads, p.head_dim},
                     .init = init::constant(1),
                     .axes = "kv_heads, head_dim",
                     .doc = "scales w_i, dimension by dimension"}};
    if (o.gate == Gate::yes) {
      list.push_back({.name = "gate_w",
                      .shape = {p.kv_heads, p.head_dim},
                      .init = init::zeros(),
                      .axes = "kv_heads, head_dim",
                      .doc = "g_t = sigmoid(gate_w . k_t + gate_b)"});
      list.push_back({.name = "gate_b", .shape = {p.kv_heads}, .init = init::zeros(), .axes = "kv_heads", .doc = "likewise"});
    }
    return list;
  }

  static std::vector<InputSpec> inputs(const Problem& p, const Options& o) {
    if (o.gate != Gate::input) return {};
    return {{.name = "gate",
             .extents = {p.batch, p.kv_heads, p.kv_len},
             .low = 1e-30,
             .high = 1,
             .drawn = [](double normal) { return 1 / (1 + std::exp(-2 - normal)); },
             .doc = "g_t: what is kept of the state when token t comes"}};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (gated(o) && !p.causal) return refuse("a gate needs a causal problem: the state forgets in the order of the tokens");
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const double tokens = static_cast<double>(p.batch * (p.heads * p.q_len + p.kv_heads * p.kv_len)), m = static_cast<double>(o.m);
    return {.flops = 2 * tokens * m * static_cast<double>(p.head_dim + 2 * (p.value_dim + 1)),
            .bytes = tensor_bytes(p),
            .exps = 2 * tokens * m};
  }

  // A sine and a cosine for each frequency.
  static StateSpec state(const Problem& p, const Options& o) {
    return Engine::state(p, 2 * o.m, gated(o) ? Engine::Kind::gated : Engine::Kind::plain);
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> w = parameters["w"] * unsqueeze(parameters["sigma"], 1) / static_cast<T>(o.tau);  // [Hk,m,D]
    const auto phi = [&](const Tensor<T>& x) {
      const Tensor<T> angle = matmul_transposed(x / (sqrt(sum(square(x), -1, Keep::yes)) + static_cast<T>(1e-3)), w);
      return concat<T>({sin(angle), cos(angle)}, -1) * static_cast<T>(amplitude(o));
    };
    const Tensor<T> phi_q = by_query_head(p, phi(by_kv_head(p, in.q))), phi_k = per_query_head(p, phi(in.k));
    Tensor<T> weights = where(allowed_pairs(p, in, every_key), matmul_transposed(phi_q, phi_k), T{0});
    if (gated(o)) {
      Tensor<T> log_gate, rest;  // ln g and 1 - g, [B,H,M]
      if (o.gate == Gate::input) {
        log_gate = log(in["gate"]), rest = T{1} - in["gate"];
      } else {
        const Tensor<T> logit = sum(in.k * unsqueeze(parameters["gate_w"], 1), -1) + unsqueeze(parameters["gate_b"], 1);
        log_gate = -softplus(-logit), rest = sigmoid(-logit);
      }
      // Products of gates j+1 .. i from running sums of their logarithms.
      const Tensor<T> kept = unsqueeze(per_query_head(p, cumsum(log_gate, 2)), 2);
      const Indices at = Indices::from({static_cast<index_t>(in.position.size())},
                                       [&](index_t i) { return std::max<index_t>(0, in.position[static_cast<std::size_t>(i)]); });
      weights = weights * exp(minimum(transpose(take(kept, at, 3)) - kept, T{0})) * unsqueeze(per_query_head(p, rest), 2);
    }
    const Tensor<T> n = sum(weights, -1, Keep::yes);
    return matmul(weights, per_query_head(p, in.v)) / maximum(p.causal ? n : abs(n), static_cast<T>(gated(o) ? 0.1 : 1.0));
  }

  Rfa(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        engine_(p, 2 * o.m, denominators(p, o), workspace),
        w_(workspace.shared<float>(p.head_dim * o.m)),
        rows_(workspace.per_worker<float>(kernels::LinearAttention::max_panel * (p.head_dim + 1))) {}

  // w, transposed.
  void prepare(const ParameterSet<float>& parameters, const Workspace& workspace) const {
    kernels::transpose(o_.m, p_.head_dim, {parameters["w"].data(), p_.head_dim}, {workspace.shared(w_).data(), o_.m});
  }

  // Of tokens whose head `h` has the sigma of kv head kv_head(h): x sigma, then by w, over |x| tau.
  template <class F>
  auto features(const ParameterSet<float>& parameters, const Workspace& workspace, F kv_head) const {
    return [this, &parameters, &workspace, kv_head](const kernels::TokenPanel& t) {
      const index_t d = p_.head_dim, alike = t.across ? 1 : t.count;  // rows of one head
      float* const inverse = workspace.of(t.worker, rows_).data();
      const kernels::Into scaled{inverse + kernels::LinearAttention::max_panel, d};
      kernels::row_squares(t.count, d, t.from, inverse);
      for (index_t i = 0; i < t.count; ++i) inverse[i] = 1 / ((std::sqrt(inverse[i]) + 1e-3f) * static_cast<float>(o_.tau));
      for (index_t i = 0; i < t.count; i += alike) {
        kernels::scale_columns(alike, d, {t.from.data + i * t.from.stride, t.from.stride},
                               parameters["sigma"].data() + kv_head(t.head_of(i)) * d, {scaled.data + i * d, d});
      }
      kernels::gemm(t.count, o_.m, d, {scaled.data, d}, {workspace.shared(w_).data(), o_.m}, t.to, {.row_scale = inverse});
      kernels::sin_cos(t.count, o_.m, t.to, static_cast<float>(amplitude(o_)), t.to, {t.to.data + o_.m, t.to.stride});
    };
  }
  auto query_features(const ParameterSet<float>& parameters, const Workspace& workspace) const {
    return features(parameters, workspace, [this](index_t head) { return p_.kv_head(head); });
  }
  auto key_features(const ParameterSet<float>& parameters, const Workspace& workspace) const {
    return features(parameters, workspace, [](index_t head) { return head; });
  }
  // The first of the tokens stands at this position.
  auto gates_of(const Arrays& tokens, index_t first, const ParameterSet<float>& parameters) const {
    return [this, &tokens, first, &parameters](const kernels::LinearAttention::Gates& g) {
      if (o_.gate == Gate::input) {
        const auto given = tokens.more["gate"].f32<3>()[g.batch][g.head];
        for (index_t i = 0; i < g.count; ++i) g.rest[i] = 1 - (g.gate[i] = given(g.position - first + i));
        return;
      }
      kernels::row_dots(g.count, p_.head_dim, g.keys, parameters["gate_w"].data() + g.head * p_.head_dim, g.gate);
      for (index_t i = 0; i < g.count; ++i) {
        const float logit = g.gate[i] + parameters["gate_b"](g.head);
        g.gate[i] = 1 / (1 + std::exp(-logit));
        g.rest[i] = 1 / (1 + std::exp(logit));
      }
    };
  }

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    prepare(parameters, workspace);
    const auto gates = gates_of(a, 0, parameters);
    const kernels::LinearAttention::GateMap gate(gates);
    engine_.run(a, workspace, query_features(parameters, workspace), key_features(parameters, workspace),
                gated(o_) ? &gate : nullptr);
  }
  void absorb(const Arrays& tokens, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    prepare(parameters, workspace);
    const auto gates = gates_of(tokens, state.end(), parameters);
    const kernels::LinearAttention::GateMap gate(gates);
    engine_.absorb(tokens, state, workspace, key_features(parameters, workspace), gated(o_) ? &gate : nullptr);
  }
  void answer(const Arrays& queries, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    prepare(parameters, workspace);
    engine_.answer(queries, state, workspace, query_features(parameters, workspace));
  }
  void step(const Arrays& token, const ParameterSet<float>& parameters, const State& state, Workspace& workspace) const {
    prepare(parameters, workspace);
    const auto gates = gates_of(token, state.end(), parameters);
    const kernels::LinearAttention::GateMap gate(gates);
    engine_.step(token, state, workspace, query_features(parameters, workspace), key_features(parameters, workspace),
                 gated(o_) ? &gate : nullptr);
  }
  void merge(State& into, const State& later) const { kernels::LinearAttention::merge(into, later); }

 private:
  static kernels::LinearAttention::Denominators denominators(const Problem& p, const Options& o) {
    if (gated(o)) return kernels::reciprocals<guard_gated>;
    return p.causal ? kernels::reciprocals<guard_causal> : kernels::reciprocals<guard>;
  }
  static double amplitude(const Options& o) { return gated(o) ? 1 / std::sqrt(static_cast<double>(o.m)) : 0.1; }
  static bool gated(const Options& o) { return o.gate != Gate::no; }
  static float guard(float n) { return std::max(std::abs(n), 1.0f); }
  static float guard_causal(float n) { return std::max(n, 1.0f); }
  static float guard_gated(float n) { return std::max(n, 0.1f); }

  Problem p_;
  Options o_;
  kernels::LinearAttention engine_;
  Booking<float> w_, rows_;
};
ATTN_VARIANT(rfa, Rfa)

}  // namespace attn
