// --iso-error and --iso-skill: the budgets that the variants of a grid race with.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "attn/sweep/iso_error.hpp"
#include "attn/sweep/options.hpp"
#include "attn/sweep/worker.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// None: variants are measured as they are given.
std::optional<Goal> goal_of(const SweepOptions& options);

// Gives the cell the smallest budget that reaches the goal; the answer says what it reaches. Refused where none does: the cell stays as it
// is. `probed` is told of each budget tried, in words.
Result<std::string> fit_budget(Cell& cell, const Goal& goal, const Worker& worker, const SweepOptions& options,
                               const Registry& registry, const std::function<void(const std::string&)>& probed);

// How many budgets fit_budget tries at most.
int probes_of(const Cell& cell, const Registry& registry);

// Whether these are one cell but for the budget of its variant.
bool same_but_budget(const Cell& a, const Cell& b, const Registry& registry);

}  // namespace attn
