#include "attn/kernels/linear/gated_backward.hpp"

#include <algorithm>
#include <utility>

#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {
namespace {

// The tokens from the last one to the first.
template <class T>
View<T, 4> reversed(const View<T, 4>& x) {
  auto strides = x.strides();
  T* const last = x.data_handle() + (x.extent(2) - 1) * strides[2];
  strides[2] = -strides[2];
  return {last, x.extents(), strides};
}

Problem with_widths(Problem p, index_t head_dim, index_t value_dim) {
  p.head_dim = head_dim, p.value_dim = value_dim;
  return p;
}

}  // namespace

GatedBackward::GatedBackward(const Problem& p, WorkspacePlan& workspace) : p_(p) {
  if (!workspace.training()) return;
  const index_t d = p.head_dim, dv = p.value_dim;
  queries_.emplace(with_widths(p, dv, d), GatedState::Form{}, workspace);
  keys_.emplace(with_widths(p, dv, d), GatedState::Form{}, workspace);
  values_.emplace(with_widths(p, d, dv), GatedState::Form{}, workspace);
  of_tokens_ = workspace.shared<float>(4 * p.batch * p.heads * p.q_len);
  ones_.fill(1);
}

GatedBackward::OfTokens GatedBackward::of_tokens(const Workspace& workspace) const {
  float* at = workspace.shared(of_tokens_).data();
  const std::array<index_t, 3> extents = {p_.batch, p_.heads, p_.q_len};
  const auto take = [&] { return View<float, 3>(std::exchange(at, at + p_.batch * p_.heads * p_.q_len), extents); };
  const auto log_gate = take(), weight = take(), d_log_gate = take(), d_weight = take();
  return {log_gate, weight, d_log_gate, d_weight};
}

void GatedBackward::run(const Arrays& arrays, const InputGradients& g, float scale, const Workspace& workspace) const {
  const View<const float, 4> q = arrays.q.f32(), k = arrays.k.f32(), v = arrays.v.f32(), d_out = g.d_out.f32();
  const OfTokens tokens = of_tokens(workspace);
  const index_t n = p_.q_len;

  // Sums over the keys before a query: v asked by d_out, of rows k.
  const auto forward = [&](const GatedState::Tokens& t) {
    const float* const weight = &tokens.weight(t.batch, t.head, t.row);
    scale_rows(t.count, v.extent(3), t.keys, weight, t.key);
    std::copy_n(&tokens.log_gate(t.batch, t.head, t.row), t.count, t.log_gate);
    return Rows(t.key);
  };
  const auto scaled = [scale](const GatedState::Queries& x) { std::fill_n(x.factor, x.count, scale); };
  // Over the queries after a key, from the last one on: the gate of the token after stands between the two.
  const auto backward = [&](const GatedState::Tokens& t) {
    for (index_t i = 0; i < t.count; ++i) {
      const index_t after = n - (t.row + i);
      t.log_gate[i] = after < n ? tokens.log_gate(t.batch, t.head, after) : 0;
    }
    return t.keys;
  };
  queries_->run({.q = d_out, .k = v, .v = k, .out = g.d_q}, workspace, {forward, scaled, GatedState::no_own});
  keys_->run({.q = reversed(v), .k = reversed(d_out), .v = reversed(q), .out = reversed(g.d_k.f32_out())}, workspace,
             {backward, scaled, GatedState::no_own});
  values_->run({.q = reversed(k), .k = reversed(q), .v = reversed(d_out), .out = reversed(g.d_v.f32_out())}, workspace,
               {backward, scaled, GatedState::no_own});
  of_gates(arrays, g, workspace);
}

// d_k and d_v want the weights of their tokens still.
void GatedBackward::of_gates(const Arrays& arrays, const InputGradients& g, const Workspace& workspace) const {
  const View<const float, 4> q = arrays.q.f32(), k = arrays.k.f32();
  const View<float, 4> d_q = g.d_q.f32_out(), d_k = g.d_k.f32_out(), d_v = g.d_v.f32_out();
  const OfTokens tokens = of_tokens(workspace);
  const index_t d = p_.head_dim;
  parallel_tasks(p_.batch * p_.heads, [&](index_t task, int) {
    const index_t b = task / p_.heads, h = task % p_.heads;
    double later = 0;  // sums of thousands of numbers of either sign
    for (index_t t = p_.q_len; t-- > 0;) {
      float *const dk = d_k[b][h].row(t), *const dv = d_v[b][h].row(t), weight = tokens.weight(b, h, t);
      float of_query = 0, of_key = 0;
      triple_dots(1, d, {q[b][h].row(t), d}, {d_q[b][h].row(t), d}, ones_.data(), &of_query);
      triple_dots(1, d, {k[b][h].row(t), d}, {dk, d}, ones_.data(), &of_key);
      later += static_cast<double>(of_query) - static_cast<double>(weight) * static_cast<double>(of_key);
      tokens.d_log_gate(b, h, t) = static_cast<float>(later);
      tokens.d_weight(b, h, t) = of_key;
      scale_rows(1, d, {dk, d}, &weight, {dk, d});
      scale_rows(1, p_.value_dim, {dv, p_.value_dim}, &weight, {dv, p_.value_dim});
    }
  });
}

void GatedBackward::pull(const View<const float, 4>& k, const View<const float, 3>& d_x, const Readout& readout,
                         const View<float, 4>& d_k) {
  const index_t batch = k.extent(0), n = k.extent(2), d = k.extent(3);
  parallel_tasks(k.extent(1), [&](index_t h, int) {
    const Into d_w{readout.d_w.row(h), d};
    std::fill_n(d_w.data, d, 0.0f);
    double d_b = 0;
    for (index_t b = 0; b < batch; ++b) {
      for (index_t t = 0; t < n; ++t) {
        const float of_token = d_x(b, h, t);
        add(1, d, {k[b][h].row(t), d}, d_w, of_token);
        add(1, d, {readout.w.row(h), d}, {d_k[b][h].row(t), d}, of_token);
        d_b += static_cast<double>(of_token);
      }
    }
    readout.d_b(h) = static_cast<float>(d_b);
  });
}

}  // namespace attn::kernels
