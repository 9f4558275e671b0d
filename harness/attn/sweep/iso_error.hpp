// The fair race: each variant with the smallest budget that reaches one error, or one skill, on this input.
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

// What a budget is to reach against softmax attention: at most this error (fid_relative), or at least this skill (fid_skill).
struct Goal {
  enum class Of { error, skill } of = Of::error;
  double value = 0;

  bool reached_by(double x) const { return of == Of::error ? x <= value : x >= value; }
  std::string text(double x) const;  // "an error of 0.1", "a skill of 0.9"
  std::string text() const { return text(value); }
};

struct Found {
  index_t value = 0;
  double reached = 0;  // error or skill
};
// The smallest value in low..high whose figure reaches the goal, to a sixteenth: doubling from below, then halving the gap. Right where
// the figure improves as the budget grows. A refusal of figure_at counts as not reached; if no value will do, the refusal says what the
// largest one tried gave.
Result<Found> smallest_budget(index_t low, index_t high, const Goal& goal, const std::function<Result<double>(index_t)>& figure_at);

}  // namespace attn
