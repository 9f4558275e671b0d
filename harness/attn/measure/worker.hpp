// The inside of a worker process: one cell, start to end.
#pragma once

#include "attn/measure/cell.hpp"

namespace attn {

// Plans, makes inputs and parameters, runs once between the memory meters, gates, clocks. Never throws: what goes wrong
// becomes the outcome. `started_s` is the process's start on the monotonic clock.
Measurement measure_cell(const Registry& registry, const Cell& cell, const Settings& settings, double started_s);

}  // namespace attn
