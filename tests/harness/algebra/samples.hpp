// Random tensors, comparison and the gradient check of the algebra's tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "attn/algebra/algebra.hpp"
#include "attn/core/rng.hpp"
#include "catch.hpp"

namespace attn::test {

inline Tensor<double> random(const Shape& shape, std::string_view name = "x") {
  const Rng rng(7, name);
  return generate<double>(shape, [&](index_t i) { return rng.normal(i); });
}

// Away from 0, where relu, abs and their like have no derivative, and positive when log and sqrt need it.
inline Tensor<double> random_off_zero(const Shape& shape, std::string_view name = "x") {
  const Tensor<double> x = random(shape, name);
  return where(x < 0, x - 0.1, x + 0.1);
}

inline double largest_difference(const Tensor<double>& a, const Tensor<double>& b) {
  REQUIRE(a.shape() == b.shape());
  double worst = 0;
  for (index_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a.data()[i] - b.data()[i]));
  return worst;
}

template <class E>
std::vector<E> list(const Elements<E>& a) {
  return {a.values().begin(), a.values().end()};
}

inline std::vector<double> list(const Tensor<double>& a) { return list(a.array()); }

// The derivative along random directions of a random projection of f, by the tape and by central differences.
inline void check_gradient(const std::vector<Tensor<double>>& at,
                           const std::function<Tensor<double>(const std::vector<Tensor<double>>&)>& f) {
  const auto loss = [&](const std::vector<Tensor<double>>& x) {
    const Tensor<double> y = f(x);
    return sum(y * random(y.shape(), "projection"));
  };
  std::vector<Tensor<double>> leaves;
  for (const auto& x : at) leaves.push_back(variable(x));
  const auto gradient = gradients(loss(leaves), leaves);
  for (int direction = 0; direction < 4; ++direction) {
    const double h = 1e-5;
    std::vector<Tensor<double>> forward, backward;
    double expected = 0;
    for (std::size_t i = 0; i < at.size(); ++i) {
      REQUIRE(gradient[i].shape() == at[i].shape());
      const auto u = random(at[i].shape(), "direction " + std::to_string(direction) + " of " + std::to_string(i));
      forward.push_back(at[i] + u * h);
      backward.push_back(at[i] - u * h);
      expected += sum(gradient[i] * u).item();
    }
    const double slope = (loss(forward).item() - loss(backward).item()) / (2 * h);
    CHECK(std::abs(slope - expected) <= 1e-6 * std::max(1.0, std::abs(expected)));
  }
}

}  // namespace attn::test
