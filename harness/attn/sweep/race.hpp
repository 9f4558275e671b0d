// --iso-error: the budgets that the variants of a grid race with.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "attn/cell/grid.hpp"
#include "attn/sweep/options.hpp"
#include "attn/sweep/schedule.hpp"
#include "attn/sweep/worker.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// Gives every cell the smallest budget that reaches the error. Those that cannot reach it stay as they are; the answer says why, by
// their keys. Ends early when time is up or the user interrupts.
std::map<std::string, std::string> fit_budgets(std::vector<Block>& blocks, const SweepOptions& options, const Registry& registry,
                                               const Schedule& schedule, const Worker& worker);

}  // namespace attn
