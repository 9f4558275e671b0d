#include "attn/kernels/dense/thresholds.hpp"

#include <algorithm>
#include <functional>

#include "harness/kernels/matrix.hpp"

using namespace attn;
using namespace attn::kernels;
using namespace attn::kernels::test;

namespace {

// By bisection, in doubles.
std::vector<double> by_bisection(std::vector<double> x, bool squared) {
  for (double& value : x) value *= squared ? 0.5 : 1;
  double high = *std::max_element(x.begin(), x.end()), low = high - 1;
  const auto weight = [&](double value, double threshold) {
    const double over = std::max(value - threshold, 0.0);
    return squared ? over * over : over;
  };
  for (int step = 0; step < 100; ++step) {
    const double middle = (low + high) / 2;
    double sum = 0;
    for (const double value : x) sum += weight(value, middle);
    (sum > 1 ? low : high) = middle;
  }
  for (double& value : x) value = weight(value, low);
  return x;
}

}  // namespace

TEST_CASE("sparsemax, entmax15: weights are those of the threshold that bisection finds, in place too") {
  on_every_isa([] {
    for (const index_t n : {1, 2, 7, 16, 33, 500, 4097}) {
      for (const float size : {1.0f, 5.0f, 1e-3f}) {
        for (const bool squared : {false, true}) {
          INFO("n=" << n << " size=" << size << (squared ? " squared" : ""));
          Matrix x = random(3, n, size), to(3, n);
          (squared ? entmax15 : sparsemax)(3, n, x.rows(), 0.5f, to.into());
          for (index_t i = 0; i < 3; ++i) {
            std::vector<double> row;
            for (index_t j = 0; j < n; ++j) row.push_back(0.5 * static_cast<double>(x.at(i, j)));
            const std::vector<double> expected = by_bisection(row, squared);
            const double largest = *std::max_element(expected.begin(), expected.end());
            for (index_t j = 0; j < n; ++j)
              REQUIRE(static_cast<double>(to.at(i, j)) == Approx(expected[static_cast<std::size_t>(j)]).margin(2e-5 * largest));
          }
          (squared ? entmax15 : sparsemax)(3, n, x.rows(), 0.5f, x.into());
          for (index_t i = 0; i < 3; ++i)
            for (index_t j = 0; j < n; ++j) REQUIRE(x.at(i, j) == to.at(i, j));
          CHECK(std::isnan(x.values[static_cast<std::size_t>(n)]));
        }
      }
    }
  });
}
