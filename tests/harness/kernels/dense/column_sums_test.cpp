// Sums of many rows that come a panel at a time: what denominators of linear attention are.
#include <cmath>
#include <vector>

#include "attn/core/rng.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "catch.hpp"

using namespace attn;

TEST_CASE("column sums by panels round as often as there are panels, not rows", "[kernels]") {
  constexpr index_t rows = 1 << 16, panel = 16, columns = 70;
  std::vector<float> x(static_cast<std::size_t>(rows * columns));
  Rng(3, "features").uniforms(x);
  std::vector<double> exact(columns, 0.0);
  std::vector<float> by_panels(columns, 0.0f), one_by_one(columns, 0.0f);
  for (index_t i = 0; i < rows; ++i) {
    const float* row = x.data() + i * columns;
    for (std::size_t j = 0; j < columns; ++j) exact[j] += static_cast<double>(row[j]), one_by_one[j] += row[j];
    if (i % panel == 0) kernels::add_column_sums(panel, columns, {row, columns}, by_panels.data());
  }
  double of_panels = 0, of_rows = 0;
  for (std::size_t j = 0; j < columns; ++j) {
    of_panels += std::pow(static_cast<double>(by_panels[j]) - exact[j], 2);
    of_rows += std::pow(static_cast<double>(one_by_one[j]) - exact[j], 2);
  }
  CHECK(std::sqrt(of_panels) < 0.4 * std::sqrt(of_rows));  // a quarter, of random signs
}
