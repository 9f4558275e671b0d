// Whole numbers of steps.
#pragma once

#include "attn/core/problem.hpp"

namespace attn {

// The least multiple of `step` that is not below n; n / d, rounded up. Of n >= 0.
constexpr index_t round_up(index_t n, index_t step) { return (n + step - 1) / step * step; }
constexpr index_t ceil_div(index_t n, index_t d) { return (n + d - 1) / d; }

// n / d, rounded down, and what remains: from 0 to d - 1. Of any n.
constexpr index_t floor_div(index_t n, index_t d) { return n / d - (n % d < 0); }
constexpr index_t floor_mod(index_t n, index_t d) { return n - floor_div(n, d) * d; }

}  // namespace attn
