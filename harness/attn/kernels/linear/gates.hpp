// Gates that are drawn rather than captured from a model, by their half-life: the tokens after which half of a state is left.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <utility>

namespace attn::kernels {

inline double log_gate_of(double half_life) { return -std::log(2.0) / half_life; }

// b with sigmoid(b) = e^log_gate.
inline double logit_of_gate(double log_gate) { return -std::log(std::expm1(-log_gate)); }

// x with softplus(x) = y.
inline double inverse_softplus(double y) { return y + std::log(-std::expm1(-y)); }

inline constexpr double longest_half_life = 1 << 20;

namespace detail {
template <int log2>
double draw_log_gate(double normal) {
  return log_gate_of(std::ldexp(std::exp(normal / 2), log2));
}
template <int... I>
constexpr auto drawers(std::integer_sequence<int, I...>) {
  return std::array{&draw_log_gate<I>...};
}
}  // namespace detail

// For InputSpec::drawn: ln g of half-lives that are lognormal about `half_life`, to the nearest power of two, from 1 to the longest.
inline double (*log_gates_about(double half_life))(double normal) {
  constexpr auto list = detail::drawers(std::make_integer_sequence<int, 21>());
  return list[static_cast<std::size_t>(std::lround(std::log2(half_life)))];
}

}  // namespace attn::kernels
