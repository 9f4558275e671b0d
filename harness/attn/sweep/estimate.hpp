// How long measuring a cell takes, before anything is measured.
#pragma once

#include "attn/cell/cell.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// Seconds, within a factor of three or so: all rounds of the cell, and of a race the search for its budget.
double estimate_s(const Cell& cell, const SweepOptions& options, const Registry& registry);

// Of one run, by the variant's cost; 0 where it is refused, and of a guest.
double estimated_run_s(const Cell& cell, const Registry& registry);

}  // namespace attn
