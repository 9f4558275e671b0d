#include "attn/kernels/dense/activations.hpp"

#include <cmath>
#include <vector>

#include "catch.hpp"
#include "harness/kernels/matrix.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::test;

namespace {

// -2, -1.5 .. 2 and again: a number for each row.
std::vector<float> steps(index_t m) {
  std::vector<float> values;
  for (index_t i = 0; i < m; ++i) values.push_back(0.5f * static_cast<float>(i % 9) - 2);
  return values;
}

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

TEST_CASE("activations are what they are called, on every shape, and on themselves") {
  on_every_isa_and_shape([](index_t m, index_t n) {
    Matrix x = random(m, n, 2, 1), by = random(m, n, 2, 2);
    const std::vector<float> plus = steps(m);
    const auto row = [&](index_t i) { return static_cast<double>(plus[static_cast<std::size_t>(i)]); };
    // `within` is the error of the function, or half a unit in the last place of the largest product.
    const auto check = [&](double within, auto run, auto expected) {
      Matrix to(m, n), self = x;
      run(x.rows(), to.into());
      run(self.rows(), self.into());
      CHECK(worst(m, n, to, expected, true) < within);
      CHECK(worst(m, n, self, expected, true) < within);
    };
    check(
        1e-6, [&](Rows from, Into to) { gelu(m, n, from, plus.data(), to); },
        [&](index_t i, index_t j) {
          const double y = at(x, i, j) + row(i);
          return y * 0.5 * std::erfc(-y / std::sqrt(2.0));
        });
    check(
        3e-7, [&](Rows from, Into to) { sigmoid(m, n, from, 0.5f, -1.5f, to); },
        [&](index_t i, index_t j) { return logistic(0.5 * at(x, i, j) - 1.5); });
    check(
        3e-7, [&](Rows from, Into to) { kernels::tanh(m, n, from, to); },
        [&](index_t i, index_t j) { return std::tanh(at(x, i, j)); });
    check(
        1e-6, [&](Rows from, Into to) { add_to_rows(m, n, from, plus.data(), to); },
        [&](index_t i, index_t j) { return at(x, i, j) + row(i); });
    check(
        4e-6, [&](Rows from, Into to) { gate(m, n, from, plus.data(), by.rows(), to); },
        [&](index_t i, index_t j) { return (at(x, i, j) + row(i)) * at(by, i, j); });
    check(
        4e-6, [&](Rows from, Into to) { sigmoid_gate(m, n, from, by.rows(), to); },
        [&](index_t i, index_t j) { return at(x, i, j) * logistic(at(by, i, j)); });
    check(
        4e-6, [&](Rows from, Into to) { divide(m, n, from, by.rows(), 0.5f, to); },
        [&](index_t i, index_t j) { return at(x, i, j) / std::max(at(by, i, j), 0.5); });
    check(
        4e-6, [&](Rows from, Into to) { multiply(m, n, from, by.rows(), to); },
        [&](index_t i, index_t j) { return at(x, i, j) * at(by, i, j); });

    Matrix to(m, n), small = random(m, n, 1e-3f, 3);
    kernels::exp(m, n, x.rows(), plus.data(), to.into());
    CHECK(worst(m, n, to, [&](index_t i, index_t j) { return std::exp(at(x, i, j) + row(i)); }) < 2e-6);
    kernels::exp(m, n, x.rows(), to.into());
    CHECK(worst(m, n, to, [&](index_t i, index_t j) { return std::exp(at(x, i, j)); }) < 2e-6);
    kernels::tanh(m, n, small.rows(), to.into());
    CHECK(worst(m, n, to, [&](index_t i, index_t j) { return std::tanh(at(small, i, j)); }) < 3e-7);  // digits kept near zero
  });
}

TEST_CASE("gated_quotient divides, gates, and tells of divisors out of their range") {
  on_every_isa_and_shape([](index_t m, index_t n) {
    Matrix x = random(m, n, 2, 1), by = random(m, n, 1, 2), g = random(m, n, 2, 3), to(m, n);
    for (index_t i = 0; i < m; ++i) {
      for (index_t j = 0; j < n; ++j) by.at(i, j) = 0.5f + std::abs(by.at(i, j));
    }
    const auto run = [&] { return gated_quotient(m, n, x.rows(), by.rows(), g.rows(), 0.5f, 64.0f, to.into()); };
    CHECK(run());
    CHECK(worst(
              m, n, to, [&](index_t i, index_t j) { return at(x, i, j) / at(by, i, j) * logistic(at(g, i, j)); }, true) < 4e-6);
    for (const float edge : {0.5f, 64.0f}) {
      by.at(m - 1, n - 1) = edge;
      CHECK(run());
    }
    for (const float bad : {0.4999f, 64.01f, 0.0f, -1.0f, std::numeric_limits<float>::infinity(), unset}) {
      by.at(m - 1, n - 1) = bad;
      CHECK(!run());
      by.at(m - 1, n - 1) = 1;
      by.at(0, 0) = bad;
      CHECK(!run());
      by.at(0, 0) = 1;
    }
  });
}

TEST_CASE("mean_by_exp is a mean by softmax of key and bias, whatever their size") {
  on_every_isa_and_shape([](index_t m, index_t n) {
    Matrix v = random(m, n, 1, 2);
    std::vector<float> to(static_cast<std::size_t>(n));
    for (const float size : {1.0f, 100.0f, 1e5f}) {
      Matrix k = random(m, n, size, 1);
      const std::vector<float> bias = {size, -size, 0.5f};
      for (const index_t first : {index_t{-1}, m / 2, m}) {
        for (const bool shared : {false, true}) {
          mean_by_exp(m, n, {k.rows(), shared, bias.data(), first, 3}, v.rows(), to.data());
          for (index_t j = 0; j < n; ++j) {
            const auto logit = [&](index_t i) {  // rounded as there
              const bool biased = i >= first && i < first + 3;
              return static_cast<double>(k.at(i, shared ? 0 : j) + (biased ? bias[static_cast<std::size_t>(i - first)] : 0.0f));
            };
            double top = logit(0), weights = 0, sum = 0;
            for (index_t i = 1; i < m; ++i) top = std::max(top, logit(i));
            for (index_t i = 0; i < m; ++i) {
              weights += std::exp(logit(i) - top);
              sum += std::exp(logit(i) - top) * at(v, i, j);
            }
            CHECK(std::abs(static_cast<double>(to[static_cast<std::size_t>(j)]) - sum / weights) < 3e-6);
          }
        }
      }
    }
  });
}

TEST_CASE("layer_norm has mean 0 and variance 1, and a row of one number gives zeros") {
  on_every_isa_and_shape([](index_t m, index_t n) {
    Matrix x = random(m, n, 3), to(m, n);
    for (index_t j = 0; j < n; ++j) x.at(0, j) = 0.75f;
    layer_norm(m, n, x.rows(), 1e-5f, to.into());
    CHECK(worst(
              m, n, to,
              [&](index_t i, index_t j) {
                double mean = 0, variance = 0;
                for (index_t c = 0; c < n; ++c) mean += at(x, i, c) / static_cast<double>(n);
                for (index_t c = 0; c < n; ++c) variance += std::pow(at(x, i, c) - mean, 2) / static_cast<double>(n);
                return (at(x, i, j) - mean) / std::sqrt(variance + 1e-5);
              },
              true) < 1e-4);
  });
}

TEST_CASE("activations end where their functions end") {
  on_every_isa([] {
    const index_t n = 5;
    Matrix far(1, n), to(1, n);
    const float values[] = {-1e30f, -200, 0, 200, 1e30f};
    std::copy_n(values, n, far.values.begin());
    const auto check = [&](std::initializer_list<float> expected) {
      for (index_t j = 0; j < n; ++j) CHECK(to.at(0, j) == expected.begin()[j]);
    };
    sigmoid(1, n, far.rows(), 1, 0, to.into());
    CHECK(to.at(0, 1) < 1e-37f);
    to.at(0, 0) = to.at(0, 1) = 0;
    check({0, 0, 0.5f, 1, 1});
    kernels::tanh(1, n, far.rows(), to.into());
    check({-1, -1, 0, 1, 1});
    const float zero = 0;
    gelu(1, n, far.rows(), &zero, to.into());
    check({-0.0f, -0.0f, 0, 200, 1e30f});
    far.values[0] = unset;
    gelu(1, 1, far.rows(), &zero, to.into());
    CHECK(std::isnan(to.at(0, 0)));
  });
}
