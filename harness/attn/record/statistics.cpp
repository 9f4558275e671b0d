#include "attn/record/statistics.hpp"

#include <algorithm>
#include <cmath>

#include "attn/core/assert.hpp"

namespace attn {

double median(std::vector<double> values) {
  ATTN_ASSERT(!values.empty());
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

double median_absolute_deviation(const std::vector<double>& values) {
  const double middle = median(values);
  std::vector<double> deviations;
  for (const double value : values) deviations.push_back(std::abs(value - middle));
  return median(std::move(deviations));
}

Interval median_interval(std::vector<double> values) {
  ATTN_ASSERT(!values.empty());
  std::sort(values.begin(), values.end());
  // The median lies between the k-th smallest and k-th largest value with probability 1 - 2 P(Binomial(n, 1/2) < k).
  const auto n = static_cast<double>(values.size());
  std::size_t k = 0;
  double below = 0, term = std::pow(0.5, n);
  while (2 * (below + term) <= 0.05) {
    below += term;
    term *= (n - static_cast<double>(k)) / (static_cast<double>(k) + 1);
    ++k;
  }
  const std::size_t skip = k == 0 ? 0 : k - 1;
  return {values[skip], values[values.size() - 1 - skip]};
}

}  // namespace attn
