// How long measuring a cell takes, before anything is measured.
#pragma once

#include "attn/cell/cell.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// Seconds, within a factor of three or so: all rounds of the cell, and of a race the search for its budget.
double estimate_s(const Cell& cell, const SweepOptions& options, const Registry& registry);

// Of one run, by the cost that the variant's page tells; 0 where that refuses, and of a guest's own variant.
double estimated_run_s(const Cell& cell, const Registry& registry);

}  // namespace attn
