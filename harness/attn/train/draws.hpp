// Random numbers in sequence, for generators that cannot say beforehand how many they need. Counter-based underneath: sample i of a
// split is the same whatever was generated before it.
#pragma once

#include <utility>
#include <vector>

#include "attn/core/rng.hpp"

namespace attn {

class Draws {
 public:
  explicit Draws(Rng rng) : rng_(rng) {}

  double uniform() { return rng_.uniform(next_++); }  // [0, 1)
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  double normal() { return rng_.normal(next_++); }
  index_t below(index_t n) { return rng_.below(next_++, n); }
  bool coin() { return below(2) == 1; }

  // k different numbers of first .. first+n-1, in random order.
  std::vector<index_t> distinct(index_t k, index_t n, index_t first = 0) {
    std::vector<index_t> all(static_cast<std::size_t>(n));
    for (index_t i = 0; i < n; ++i) all[static_cast<std::size_t>(i)] = first + i;
    for (index_t i = 0; i < k; ++i) std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(i + below(n - i))]);
    all.resize(static_cast<std::size_t>(k));
    return all;
  }

 private:
  Rng rng_;
  index_t next_ = 0;
};

}  // namespace attn
