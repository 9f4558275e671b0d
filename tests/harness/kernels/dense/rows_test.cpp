#include "attn/kernels/dense/rows.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "catch.hpp"
#include "harness/kernels/matrix.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::test;

TEST_CASE("feature maps") {
  on_every_isa_and_shape([](index_t m, index_t n) {
    Matrix x = random(m, n, 3), to(m, n), other(m, n);
    elu_plus_one(m, n, x.rows(), to.into());
    CHECK(worst(m, n, to, [&](index_t i, index_t j) { return at(x, i, j) > 0 ? at(x, i, j) + 1 : std::exp(at(x, i, j)); }) < 2e-6);
    std::vector<float> factor(200);
    for (std::size_t i = 0; i < factor.size(); ++i) factor[i] = 0.25f * static_cast<float>(i % 9);
    const auto row = [&](index_t i) { return static_cast<double>(factor[static_cast<std::size_t>(i)]); };
    relu(m, n, x.rows(), factor.data(), to.into());
    CHECK(worst(m, n, to, [&](index_t i, index_t j) { return std::max(at(x, i, j), 0.0) * row(i); }) < 1e-6);
    relu_plus(m, n, x.rows(), 0.5f, to.into());
    CHECK(worst(m, n, to, [&](index_t i, index_t j) { return std::max(at(x, i, j), 0.0) + 0.5; }) < 1e-6);
    exp_minus(m, n, x.rows(), factor.data(), to.into());
    CHECK(worst(m, n, to, [&](index_t i, index_t j) { return std::exp(at(x, i, j) - row(j)); }) < 3e-6);
    scale_columns(m, n, x.rows(), factor.data() + 1, to.into());
    CHECK((n > 8 || worst(m, n, to, [&](index_t i, index_t j) { return at(x, i, j) * row(j + 1); }) < 1e-6));
    exp_features(m, n, x.rows(), factor.data(), 2.0f, 0.125f, to.into());
    CHECK(worst(m, n, to, [&](index_t i, index_t j) { return 2 * (std::exp(at(x, i, j) - row(i)) + 0.125); }) < 3e-6);
    Matrix wide = random(m, n, 30);
    sin_cos(m, n, wide.rows(), 2.0f, to.into(), other.into());
    CHECK(worst(
              m, n, to, [&](index_t i, index_t j) { return 2 * std::sin(at(wide, i, j)); }, true) < 2e-6);
    CHECK(worst(
              m, n, other, [&](index_t i, index_t j) { return 2 * std::cos(at(wide, i, j)); }, true) < 2e-6);
  });
}

TEST_CASE("softmax of rows, and on itself") {
  on_every_isa_and_shape([](index_t m, index_t n) {
    Matrix x = random(m, n, 20), to(m, n), self = x;
    softmax(m, n, x.rows(), 0.5f, to.into());
    const auto expected = [&](index_t i, index_t j) {
      double top = -INFINITY, sum = 0;
      for (index_t c = 0; c < n; ++c) top = std::max(top, 0.5 * at(x, i, c));
      for (index_t c = 0; c < n; ++c) sum += std::exp(0.5 * at(x, i, c) - top);
      return std::exp(0.5 * at(x, i, j) - top) / sum;
    };
    CHECK(worst(m, n, to, expected) < 1e-5);
    softmax(m, n, self.rows(), 0.5f, self.into());
    CHECK(worst(m, n, self, expected) < 1e-5);
  });
}

TEST_CASE("softmax_gradient: weights times what exceeds their mean of it") {
  on_every_isa_and_shape([](index_t m, index_t n) {
    Matrix weights = random(m, n, 1), given = random(m, n, 2), gradient = given;
    softmax_gradient(m, n, weights.rows(), gradient.into());
    const auto expected = [&](index_t i, index_t j) {
      double mean = 0;
      for (index_t c = 0; c < n; ++c) mean += at(weights, i, c) * at(given, i, c);
      return at(weights, i, j) * (at(given, i, j) - mean);
    };
    CHECK(worst(m, n, gradient, expected) < 1e-5);
  });
}

TEST_CASE("running_sums: row by row, forwards and backwards, from a start, on themselves and on top of what is there") {
  on_every_isa_and_shape([](index_t m, index_t n) {
    Matrix x = random(m, n, 1, 1), to(m, n), self = x, sum = random(m, n, 1, 2), backwards(m, n);
    const Matrix before = sum;
    Matrix start = random(1, n, 1, 3), total(1, n);
    running_sums(m, n, x.rows(), start.values.data(), false, to.into(), total.values.data());
    running_sums(m, n, self.rows(), start.values.data(), false, self.into(), total.values.data());
    running_sums(m, n, x.rows(), start.values.data(), true, sum.into(), total.values.data());
    const Rows last{x.rows().data + (m - 1) * x.stride, -x.stride};
    running_sums(m, n, last, start.values.data(), false, {backwards.into().data + (m - 1) * x.stride, -x.stride},
                 total.values.data());
    const auto expected = [&](index_t from, index_t to_row, index_t j) {
      double all = 0;
      for (index_t i = from; i <= to_row; ++i) all += at(x, i, j);
      return all;
    };
    const auto forwards = [&](index_t i, index_t j) { return at(start, 0, j) + expected(0, i, j); };
    CHECK(worst(m, n, to, forwards, true) < 1e-5);
    CHECK(worst(m, n, self, forwards, true) < 1e-5);
    Matrix old = before;
    CHECK(worst(
              m, n, sum, [&](index_t i, index_t j) { return at(old, i, j) + forwards(i, j); }, true) < 1e-5);
    CHECK(worst(
              m, n, backwards, [&](index_t i, index_t j) { return at(start, 0, j) + expected(i, m - 1, j); }, true) < 1e-5);
    CHECK(worst(
              1, n, total, [&](index_t, index_t j) { return expected(0, m - 1, j); }, true) < 1e-5);
  });
}

TEST_CASE("add_exactly: a sum of a million loses no more than one rounding") {
  on_every_isa([] {
    for (const index_t n : {1, 16, 17}) {
      Matrix from = random(1, n, 1, 1), sum(1, n), rest(1, n);
      std::fill_n(sum.values.data(), n, 0.0f);
      std::fill_n(rest.values.data(), n, 0.0f);
      for (index_t i = 0; i < 1'000'000; ++i) add_exactly(n, from.values.data(), sum.values.data(), rest.values.data());
      CHECK(worst(1, n, sum, [&](index_t, index_t j) { return 1e6 * at(from, 0, j); }) < 6.1e-8);
    }
  });
}

TEST_CASE("sums, maxima, transposes") {
  on_every_isa_and_shape([](index_t m, index_t n) {
    Matrix x = random(m, n, 1), turned(n, m), scaled(m, n);
    transpose(m, n, x.rows(), turned.into());
    CHECK(worst(n, m, turned, [&](index_t i, index_t j) { return at(x, j, i); }) == 0);
    copy(m, n, x.rows(), scaled.into());
    add(m, n, x.rows(), scaled.into());
    CHECK(worst(m, n, scaled, [&](index_t i, index_t j) { return 2 * at(x, i, j); }) == 0);

    const auto rows = static_cast<std::size_t>(m), columns = static_cast<std::size_t>(n);
    std::vector<float> top(rows), squares(rows), dots(rows), sums(rows, 1.0f);
    std::vector<float> column_sums(columns, 1.0f), column_top(columns, -0.5f), weights(columns);
    for (std::size_t j = 0; j < columns; ++j) weights[j] = static_cast<float>(j % 5) - 2;
    row_max(m, n, x.rows(), top.data());
    row_squares(m, n, x.rows(), squares.data());
    row_dots(m, n, x.rows(), weights.data(), dots.data());
    add_row_sums(m, n, x.rows(), sums.data());
    add_column_sums(m, n, x.rows(), column_sums.data());
    raise_column_max(m, n, x.rows(), column_top.data());
    for (index_t i = 0; i < m; ++i) {
      const auto r = static_cast<std::size_t>(i);
      double t = -INFINITY, s = 0, dot = 0, sum = 1;
      for (index_t j = 0; j < n; ++j) {
        t = std::max(t, at(x, i, j)), s += at(x, i, j) * at(x, i, j), sum += at(x, i, j);
        dot += at(x, i, j) * static_cast<double>(weights[static_cast<std::size_t>(j)]);
      }
      CHECK(static_cast<double>(top[r]) == t);
      CHECK(squares[r] == Approx(s).epsilon(1e-5));
      CHECK(dots[r] == Approx(dot).margin(1e-4));
      CHECK(sums[r] == Approx(sum).margin(1e-4));
    }
    for (index_t j = 0; j < n; ++j) {
      const auto c = static_cast<std::size_t>(j);
      double t = -0.5, sum = 1;
      for (index_t i = 0; i < m; ++i) t = std::max(t, at(x, i, j)), sum += at(x, i, j);
      CHECK(static_cast<double>(column_top[c]) == t);
      CHECK(column_sums[c] == Approx(sum).margin(1e-4));
    }
    scale_rows(m, n, x.rows(), squares.data(), scaled.into());
    CHECK(worst(m, n, scaled, [&](index_t i, index_t j) {
            return at(x, i, j) * static_cast<double>(squares[static_cast<std::size_t>(i)]);
          }) < 1e-6);
  });
}
