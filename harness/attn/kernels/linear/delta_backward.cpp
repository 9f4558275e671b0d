#include "attn/kernels/linear/delta_backward.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "attn/core/round.hpp"
#include "attn/exec/arena.hpp"
#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/gated_panel.hpp"

namespace attn::kernels {

// Rows of D, of Dv and of the panel's tokens lie as far apart as they are long.
struct DeltaBackward::Scratch {
  float* states;                                       // [panels, D, Dv]: before each panel
  float *d_state, *turned, *d_turned;                  // [D, Dv], and S^T and dS^T
  float *k, *q, *d_k, *d_q, *left;                     // [gated_panel, D]; q with the scale
  float *told, *error, *z, *d_z, *asked;               // [gated_panel, Dv]: U K S, z / beta, z, .., Q S
  float *k_turned, *z_turned;                          // [D, gated_panel], [Dv, gated_panel]
  float *keys, *weights, *d_keys, *d_weights, *solve;  // [gated_panel, gated_panel]: M, W, their gradients, triangle of d_z
  PanelDecay decay;
  float *k_factor, *q_factor, *beta, *minus;  // [gated_panel]
  float *row, *column;                        // [gated_panel]: sums of gradients by what they say of ln g
};

DeltaBackward::DeltaBackward(const Problem& p, WorkspacePlan& workspace) : p_(p) {
  if (!workspace.training()) return;
  const index_t d = p.head_dim, dv = p.value_dim, c = gated_panel;
  of_tokens_ = workspace.shared<float>(4 * p.batch * p.heads * p.q_len);
  scratch_ = workspace.per_worker<float>((panels() + 3) * d * dv + 6 * c * d + 6 * c * dv + 6 * c * c + 9 * c);
}

index_t DeltaBackward::panels() const { return ceil_div(p_.kv_len, gated_panel); }

DeltaBackward::OfTokens DeltaBackward::of_tokens(const Workspace& workspace) const {
  float* at = workspace.shared(of_tokens_).data();
  const std::array<index_t, 3> extents = {p_.batch, p_.heads, p_.q_len};
  const auto take = [&] { return View<float, 3>(std::exchange(at, at + p_.batch * p_.heads * p_.q_len), extents); };
  const auto log_gate = take(), beta = take(), d_log_gate = take(), d_beta = take();
  return {log_gate, beta, d_log_gate, d_beta};
}

class DeltaBackward::Run {
 public:
  Run(const DeltaBackward& plan, const Arrays& a, const InputGradients& g, float scale, const Workspace& workspace)
      : plan_(plan),
        p_(plan.p_),
        d_(p_.head_dim),
        dv_(p_.value_dim),
        scale_(scale),
        q_(a.q.f32()),
        k_(a.k.f32()),
        v_(a.v.f32()),
        d_out_(g.d_out.f32()),
        d_q_(g.d_q.f32_out()),
        d_k_(g.d_k.f32_out()),
        d_v_(g.d_v.f32_out()),
        tokens_(plan.of_tokens(workspace)),
        workspace_(workspace) {}

  void head(index_t b, index_t h, int worker) const {
    const Scratch s = scratch(worker);
    std::fill_n(s.states, d_ * dv_, 0.0f);
    for (index_t panel = 0; panel + 1 < plan_.panels(); ++panel) {
      const index_t t = panel * gated_panel;
      float *const state = s.states + panel * d_ * dv_, *const next = state + d_ * dv_;
      correct(b, h, t, gated_panel, state, s);
      scale_rows(gated_panel, d_, {s.k, d_}, s.decay.after, {s.left, d_});
      std::copy_n(state, d_ * dv_, next);
      fade_and_add(d_, dv_, gated_panel, {s.left, d_}, {s.z, dv_}, {s.decay.all, false}, {next, dv_});
    }
    std::fill_n(s.d_state, d_ * dv_, 0.0f);
    for (index_t panel = plan_.panels(); panel-- > 0;) {
      const index_t t = panel * gated_panel, count = std::min(gated_panel, p_.kv_len - t);
      const float* const state = s.states + panel * d_ * dv_;
      correct(b, h, t, count, state, s);
      pull_outputs(b, h, t, count, state, s);
      pull_corrections(b, h, t, count, s);
      pull_rows(rows(d_out_, b, h, t), count, state, s);
      const double of_all = pull_state(b, h, t, count, state, s);
      pull_gates(b, h, t, count, of_all, s);
      pull_norms(b, h, t, count, s);
    }
  }

 private:
  // Keys, products of gates and corrections z of a panel, from the state before it; M, the weights of keys for later keys.
  void correct(index_t b, index_t h, index_t t, index_t count, const float* state, const Scratch& s) const {
    decay_of(count, &tokens_.log_gate(b, h, t), s.decay);
    std::copy_n(&tokens_.beta(b, h, t), count, s.beta);
    unit_factors(count, d_, rows(k_, b, h, t), 1, s.k_factor);
    scale_rows(count, d_, rows(k_, b, h, t), s.k_factor, {s.k, d_});
    transpose(count, d_, {s.k, d_}, {s.k_turned, gated_panel});
    gemm(count, count, d_, {s.k, d_}, {s.k_turned, gated_panel}, triangle(s.keys), {.lower = Lower::result, .diagonal = -1});
    multiply(count, count, triangle(s.keys), triangle(s.decay.between), triangle(s.keys));
    gemm(count, dv_, d_, {s.k, d_}, {state, dv_}, {s.told, dv_}, {.row_scale = s.decay.upto});
    copy(count, dv_, {s.told, dv_}, {s.z, dv_});
    substitute_delta(count, dv_, triangle(s.keys), s.beta, rows(v_, b, h, t), {s.z, dv_});
  }

  // d_z of the panel's outputs and of the state after it, not yet of later corrections.
  void pull_outputs(index_t b, index_t h, index_t t, index_t count, const float* state, const Scratch& s) const {
    unit_factors(count, d_, rows(q_, b, h, t), scale_, s.q_factor);
    scale_rows(count, d_, rows(q_, b, h, t), s.q_factor, {s.q, d_});
    gemm(count, count, d_, {s.q, d_}, {s.k_turned, gated_panel}, triangle(s.weights), {.lower = Lower::result});
    multiply(count, count, triangle(s.weights), triangle(s.decay.between), triangle(s.weights));
    gemm(count, dv_, d_, {s.q, d_}, {state, dv_}, {s.asked, dv_}, {.row_scale = s.decay.upto});
    gemm(count, dv_, d_, {s.k, d_}, {s.d_state, dv_}, {s.d_z, dv_}, {.row_scale = s.decay.after});
    for (index_t j = 0; j < count; ++j) s.column[j] = dot(dv_, s.z + j * dv_, s.d_z + j * dv_);  // of ln after_j
    gemm(count, dv_, count, {s.weights, 1, gated_panel}, rows(d_out_, b, h, t), {s.d_z, dv_}, {.add = true});
  }

  // The transpose of the triangle, from the last token on; then d_beta and the error's gradient, which is that of v.
  void pull_corrections(index_t b, index_t h, index_t t, index_t count, const Scratch& s) const {
    for (index_t i = 0; i < count; ++i)
      for (index_t j = 0; j < i; ++j) {
        const index_t from = count - 1 - j, to = count - 1 - i;
        s.solve[i * gated_panel + j] = -s.keys[from * gated_panel + to] * s.beta[from];
      }
    substitute(count, dv_, triangle(s.solve), {s.d_z + (count - 1) * dv_, -dv_});
    for (index_t i = 0; i < count; ++i) {
      // The error v - told - M z, whose product with beta is z: told anew, as beta may be 0.
      float* const error = s.error + i * dv_;
      std::copy_n(v_[b][h].row(t + i), dv_, error);
      add(1, dv_, {s.told + i * dv_, dv_}, {error, dv_}, -1);
      for (index_t j = 0; j < i; ++j) add(1, dv_, {s.z + j * dv_, dv_}, {error, dv_}, -s.keys[i * gated_panel + j]);
      tokens_.d_beta(b, h, t + i) = dot(dv_, error, s.d_z + i * dv_);
    }
    scale_rows(count, dv_, {s.d_z, dv_}, s.beta, {s.error, dv_});  // the error's gradient from here on
    copy(count, dv_, {s.error, dv_}, {d_v_[b][h].row(t), d_v_.stride(2)});
    transpose(count, dv_, {s.z, dv_}, {s.z_turned, gated_panel});
    gemm(count, count, dv_, {s.error, dv_}, {s.z_turned, gated_panel}, triangle(s.d_keys),
         {.lower = Lower::result, .diagonal = -1});
    const Rows d_out = rows(d_out_, b, h, t);
    gemm(count, count, dv_, {d_out.data, d_out.stride}, {s.z_turned, gated_panel}, triangle(s.d_weights), {.lower = Lower::result});
    // What all says of the gates up to i, and, in the place of the triangle just solved, of those between j and i.
    for (index_t i = 0; i < count; ++i) {
      s.row[i] = dot(dv_, d_out.data + i * d_out.stride, s.asked + i * dv_) - dot(dv_, s.error + i * dv_, s.told + i * dv_);
      for (index_t at = i * gated_panel; at < i * gated_panel + i; ++at)
        s.solve[at] = s.d_weights[at] * s.weights[at] - s.d_keys[at] * s.keys[at];
    }
    multiply(count, count, triangle(s.d_keys), triangle(s.decay.between), triangle(s.d_keys));
    multiply(count, count, triangle(s.d_weights), triangle(s.decay.between), triangle(s.d_weights));
  }

  // d_q and d_k, of the unit rows.
  void pull_rows(Rows d_out, index_t count, const float* state, const Scratch& s) const {
    transpose(d_, dv_, {state, dv_}, {s.turned, d_});
    transpose(d_, dv_, {s.d_state, dv_}, {s.d_turned, d_});
    gemm(count, d_, dv_, {d_out.data, d_out.stride}, {s.turned, d_}, {s.d_q, d_}, {.row_scale = s.decay.upto});
    gemm(count, d_, count, {s.d_weights, gated_panel}, {s.k, d_}, {s.d_q, d_}, {.add = true});
    for (index_t i = 0; i < count; ++i) s.minus[i] = -s.decay.upto[i];
    gemm(count, d_, dv_, {s.error, dv_}, {s.turned, d_}, {s.d_k, d_}, {.row_scale = s.minus});
    gemm(count, d_, dv_, {s.z, dv_}, {s.d_turned, d_}, {s.left, d_}, {.row_scale = s.decay.after});
    add(count, d_, {s.left, d_}, {s.d_k, d_});
    gemm(count, d_, count, {s.d_weights, 1, gated_panel}, {s.q, d_}, {s.d_k, d_}, {.add = true});
    gemm(count, d_, count, {s.d_keys, gated_panel}, {s.k, d_}, {s.left, d_});
    gemm(count, d_, count, {s.d_keys, 1, gated_panel}, {s.k, d_}, {s.left, d_}, {.add = true});
    add(count, d_, {s.left, d_}, {s.d_k, d_}, -1);
  }

  // From the gradient of the state after a panel to that of the state before it; what it says of all the panel's gates.
  double pull_state(index_t b, index_t h, index_t t, index_t count, const float* state, const Scratch& s) const {
    const double of_all = static_cast<double>(dot(d_ * dv_, state, s.d_state)) * static_cast<double>(s.decay.all[0]);
    scale_rows(count, d_, {s.q, d_}, s.decay.upto, {s.left, d_});
    fade_and_add(d_, dv_, count, {s.left, d_}, rows(d_out_, b, h, t), {s.decay.all, false}, {s.d_state, dv_});
    scale_rows(count, d_, {s.k, d_}, s.minus, {s.left, d_});
    gemm(d_, dv_, count, {s.left, 1, d_}, {s.error, dv_}, {s.d_state, dv_}, {.add = true});
    return of_all;
  }

  // Gate t is among those up to i >= t, after j < t, between j < t and i >= t, and all.
  void pull_gates(index_t b, index_t h, index_t t, index_t count, double of_all, const Scratch& s) const {
    for (index_t at = 0; at < count; ++at) {
      double sum = of_all;
      for (index_t j = 0; j < at; ++j) sum += static_cast<double>(s.column[j]);
      for (index_t i = at; i < count; ++i) {
        sum += static_cast<double>(s.row[i]);
        for (index_t j = 0; j < at; ++j) sum += static_cast<double>(s.solve[i * gated_panel + j]);
      }
      tokens_.d_log_gate(b, h, t + at) = static_cast<float>(sum);
    }
  }

  // y = f x with f = s / sqrt(|x|^2 + eps): dx = f (dy - y (y.dy) / s^2).
  void pull_norms(index_t b, index_t h, index_t t, index_t count, const Scratch& s) const {
    const auto pull = [&](const float* unit, const float* gradient, const float* factor, float size, const View<float, 4>& to) {
      for (index_t i = 0; i < count; ++i) {
        const float *const y = unit + i * d_, *const dy = gradient + i * d_, along = dot(d_, y, dy) / (size * size);
        const Into row{to[b][h].row(t + i), d_};
        copy(1, d_, {dy, d_}, row);
        add(1, d_, {y, d_}, row, -along);
        scale_rows(1, d_, row, factor + i, row);
      }
    };
    pull(s.q, s.d_q, s.q_factor, scale_, d_q_);
    pull(s.k, s.d_k, s.k_factor, 1, d_k_);
  }

  static float dot(index_t n, const float* x, const float* y) {
    float sum = 0;
    row_dots(1, n, {x, n}, y, &sum);
    return sum;
  }
  static Into triangle(float* x) { return {x, gated_panel}; }
  static Rows rows(const View<const float, 4>& x, index_t b, index_t h, index_t t) { return {x[b][h].row(t), x.stride(2)}; }

  Scratch scratch(int worker) const {
    float* at = workspace_.of(worker, plan_.scratch_).data();
    const auto take = [&](index_t count) { return std::exchange(at, at + count); };
    const index_t c = gated_panel;
    Scratch s{};
    s.states = take(plan_.panels() * d_ * dv_);
    for (float** x : {&s.d_state, &s.turned, &s.d_turned}) *x = take(d_ * dv_);
    for (float** x : {&s.k, &s.q, &s.d_k, &s.d_q, &s.left, &s.k_turned}) *x = take(c * d_);
    for (float** x : {&s.told, &s.error, &s.z, &s.d_z, &s.asked, &s.z_turned}) *x = take(c * dv_);
    for (float** x : {&s.keys, &s.weights, &s.d_keys, &s.d_weights, &s.solve, &s.decay.between}) *x = take(c * c);
    for (float** x : {&s.decay.upto, &s.decay.after, &s.decay.all, &s.k_factor, &s.q_factor, &s.beta, &s.minus, &s.row, &s.column})
      *x = take(c);
    return s;
  }

  const DeltaBackward& plan_;
  const Problem& p_;
  const index_t d_, dv_;
  const float scale_;
  const View<const float, 4> q_, k_, v_, d_out_;
  const View<float, 4> d_q_, d_k_, d_v_;
  const OfTokens tokens_;
  const Workspace& workspace_;
};

void DeltaBackward::run(const Arrays& arrays, const InputGradients& gradients, float scale, const Workspace& workspace) const {
  const Run run(*this, arrays, gradients, scale, workspace);
  parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) { run.head(task / p_.heads, task % p_.heads, worker); });
}

}  // namespace attn::kernels
