// What `attn_sweep --scaling` prints: the time of each cell on other numbers of threads, foretold from its tasks as one thread does them, and
// the measured time where this machine has so many.
#pragma once

#include <string>
#include <vector>

#include "attn/cell/grid.hpp"
#include "attn/core/result.hpp"
#include "attn/exec/recorder.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// Of several recordings of the same run the least time of each task, and of what lies between the regions.
Recording least_of(const std::vector<Recording>& recordings);

// Of the cells in these blocks, whatever their threads: on each number that --scaling names. Runs all of them, in this process.
Result<std::string> scaling_text(const std::vector<Block>& blocks, const SweepOptions& o, const Registry& registry);

}  // namespace attn
