#include <cmath>
#include <functional>
#include <numbers>
#include <span>

#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/linear_attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// cosformer: weights of rectified queries and keys that fall with the distance as a cosine.
//   out_i = sum_j w_ij v_j / max(sum_j w_ij, 1e-6),  w_ij = relu(q_i).relu(k_j) cos(pi (i - j) / (2 L)),  L = max(N, M);
//   j <= i when causal
//   By cos(a - b) = cos a cos b + sin a sin b these are 2 D features of each token.
//   Qin et al. 2022, arXiv:2202.08791, section 3.3; the clamp: OpenNLPLab/cosFormer
//   useful flops 8 N D Dv; workspace a state of 2 D (Dv + 1) a worker, a sine and a cosine a position
struct Cosformer {
  using Engine = kernels::LinearAttention;

  static VariantInfo info() {
    return {.title = "cosFormer",
            .formula = "out_i = sum_j w_ij v_j / sum_j w_ij, w_ij = relu(q_i).relu(k_j) cos(pi (i - j) / (2 L))",
            .paper = "Qin et al. 2022, arXiv:2202.08791, section 3.3",
            .cost_in_n = "N D^2",
            .exactness = Exactness::different,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    const double tokens = static_cast<double>(p.batch * (p.heads * p.q_len + p.kv_heads * p.kv_len));
    return {.flops = 4 * tokens * static_cast<double>(p.head_dim * (p.value_dim + 1)), .bytes = tensor_bytes(p), .exps = 0};
  }

  // Two sums over the keys for the cosine and two for the sine.
  static StateSpec state(const Problem& p, const NoOptions&) { return kernels::LinearAttention::state(p, 2 * p.head_dim); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    const Tensor<T> near = tabulate<T>({static_cast<index_t>(in.position.size()), p.kv_len}, [&](index_t row, index_t j) {
      return std::cos(angle(p, in.position[static_cast<std::size_t>(row)] - j));
    });
    const Tensor<T> products = matmul_transposed(relu(in.q), relu(per_query_head(p, in.k))) * near;
    const Tensor<T> weights = where(allowed_pairs(p, in, every_key), products, T{0});
    return matmul(weights, per_query_head(p, in.v)) / maximum(sum(weights, -1, Keep::yes), static_cast<T>(1e-6));
  }

  Cosformer(const Problem& p, const NoOptions&, WorkspacePlan& workspace)
      : p_(p),
        engine_(p, 2 * p.head_dim, kernels::reciprocals<guard>, workspace),
        sin_(workspace.table<float>(positions(), of_positions([](double x) { return std::sin(x); }))),
        cos_(workspace.table<float>(positions(), of_positions([](double x) { return std::cos(x); }))) {}

  auto features(const Workspace& workspace) const {
    return [this, sines = workspace.shared(sin_).data(), cosines = workspace.shared(cos_).data()](const kernels::TokenPanel& t) {
      const index_t d = p_.head_dim, rows = t.across ? 1 : t.count;  // of one position after the other
      for (index_t i = 0; i < t.count; i += rows) {
        const index_t at = t.position_of(i) - first_position();
        const kernels::Rows from{t.from.data + i * t.from.stride, t.from.stride};
        float* const to = t.to.data + i * t.to.stride;
        kernels::relu(rows, d, from, sines + at, {to, t.to.stride});
        kernels::relu(rows, d, from, cosines + at, {to + d, t.to.stride});
      }
    };
  }
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const auto phi = features(workspace);
    engine_.run(a, workspace, phi, phi);
  }
  void absorb(const Arrays& tokens, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    engine_.absorb(tokens, state, workspace, features(workspace));
  }
  void answer(const Arrays& queries, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    engine_.answer(queries, state, workspace, features(workspace));
  }
  void step(const Arrays& token, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    const auto phi = features(workspace);
    engine_.step(token, state, workspace, phi, phi);
  }
  void merge(State& into, const State& later) const { kernels::LinearAttention::merge(into, later); }

 private:
  static float guard(float n) { return std::max(n, 1e-6f); }
  static double angle(const Problem& p, index_t distance) {
    return std::numbers::pi * static_cast<double>(distance) / static_cast<double>(2 * std::max(p.q_len, p.kv_len));
  }
  // A function of the angle of each position.
  template <class F>
  std::function<void(std::span<float>)> of_positions(F f) const {
    return [p = p_, first = first_position(), f](std::span<float> to) {
      for (std::size_t i = 0; i < to.size(); ++i) to[i] = static_cast<float>(f(angle(p, first + static_cast<index_t>(i))));
    };
  }
  index_t positions() const { return p_.kv_len - first_position(); }
  index_t first_position() const { return std::min<index_t>(0, p_.query_position(0)); }

  Problem p_;
  kernels::LinearAttention engine_;
  Booking<float> sin_, cos_;
};
ATTN_VARIANT(cosformer, Cosformer)

}  // namespace attn
