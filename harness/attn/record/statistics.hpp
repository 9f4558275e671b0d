// Robust statistics of timing samples.
#pragma once

#include <vector>

namespace attn {

struct Interval {
  double low = 0, high = 0;
};

// Both of a list that is not empty.
double median(std::vector<double> values);
double median_absolute_deviation(const std::vector<double>& values);

// Distribution-free confidence interval of the median from order statistics, at least 95 % where the count allows it
// (6 values); the whole range below that.
Interval median_interval(std::vector<double> values);

}  // namespace attn
