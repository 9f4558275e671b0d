// The fair race: each variant with the smallest budget that reaches one error on this input.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attn/variant/registry.hpp"

namespace attn {

// What a page declares with OptionTable::budget().
struct Budget {
  std::vector<std::string> options;  // that one number sets
  index_t low = 1, high = 1;
};
std::optional<Budget> budget_of(const VariantType& type);

// "local:left=128,right=128,sinks=4" with 7 is "local:left=7,right=7,sinks=4". The name is canonical.
std::string with_budget(std::string_view variant, const Budget& budget, index_t value);

struct Found {
  index_t value = 0;
  double error = 0;
};
// The smallest value in low..high whose error_at is at most `target`, to a sixteenth: doubling from below, then halving the
// gap. Right where the error falls as the budget grows. A refusal of error_at counts as too large an error; if no value
// will do, the refusal says what the largest one tried gave.
Result<Found> smallest_budget(index_t low, index_t high, double target, const std::function<Result<double>(index_t)>& error_at);

}  // namespace attn
