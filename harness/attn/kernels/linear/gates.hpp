// Gates that are drawn rather than captured from a model, by their half-life: the tokens after which half of a state is left.
#pragma once

#include <cmath>

namespace attn::kernels {

inline double log_gate_of(double half_life) { return -std::log(2.0) / half_life; }

// b with sigmoid(b) = e^log_gate.
inline double logit_of_gate(double log_gate) { return -std::log(std::expm1(-log_gate)); }

// x with softplus(x) = y.
inline double inverse_softplus(double y) { return y + std::log(-std::expm1(-y)); }

inline constexpr double longest_half_life = 1 << 20;

// For InputSpec::drawn: ln g of half-lives that are lognormal about `half_life`.
inline auto log_gates_about(double half_life) {
  return [half_life](double normal) { return log_gate_of(half_life * std::exp(normal / 2)); };
}

}  // namespace attn::kernels
