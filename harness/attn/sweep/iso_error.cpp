#include "attn/sweep/iso_error.hpp"

#include <algorithm>
#include <cstdio>

#include "attn/core/text.hpp"

namespace attn {

namespace {

std::string rounded(double figure) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", figure);
  return text;
}

}  // namespace

std::optional<Budget> budget_of(const VariantType& type) {
  Budget budget{.options = {}, .low = 1, .high = unlimited};
  for (const OptionDoc& option : type.options) {
    if (!option.budget) continue;
    budget.options.push_back(option.name);
    budget.low = std::max(budget.low, option.low);
    budget.high = std::min(budget.high, option.high);
  }
  if (budget.options.empty()) return {};
  return budget;
}

std::string with_budget(std::string_view variant, const Budget& budget, index_t value) {
  VariantName name = VariantName::parse(variant).value();
  for (const std::string& option : budget.options) name.options.set(option, std::to_string(value));
  return name.text();
}

std::string Goal::text(double x) const { return (of == Of::error ? "an error of " : "a skill of ") + rounded(x); }

Result<Found> smallest_budget(index_t low, index_t high, const Goal& goal,
                              const std::function<Result<double>(index_t)>& figure_at) {
  ATTN_ASSERT(low >= 1);
  high = std::max(low, high);
  index_t too_small = low - 1;
  std::optional<Found> found;
  std::string last;
  const auto reaches = [&](index_t value) {
    const auto figure = figure_at(value);
    last = std::to_string(value) + (figure ? " gives " + rounded(*figure) : ": " + figure.reason());
    if (!figure || !goal.reached_by(*figure)) return false;
    found = Found{value, *figure};
    return true;
  };
  for (index_t value = low; !reaches(value); value = std::min(2 * value, high)) {
    too_small = value;
    if (value == high) return refuse("no budget up to " + std::to_string(high) + " reaches " + goal.text() + ": " + last);
  }
  while (found->value - too_small > std::max<index_t>(1, found->value / 16)) {
    const index_t middle = too_small + (found->value - too_small) / 2;
    if (!reaches(middle)) too_small = middle;
  }
  return *found;
}

}  // namespace attn
