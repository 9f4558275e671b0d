// The inside of a worker process: one cell, start to end.
#pragma once

#include <functional>
#include <string>

#include "attn/cell/cell.hpp"
#include "attn/cell/cell_run.hpp"
#include "attn/cell/needs.hpp"

namespace attn {

// Plans, makes inputs and parameters, runs once between the memory meters, gates, clocks. Never throws: what goes wrong
// becomes the outcome. `started_s` is the process's start on the monotonic clock. `needs`, where given, is told what the cell takes of
// memory before anything is made, and again once it is planned.
Measurement measure_cell(const Registry& registry, const Cell& cell, const Settings& settings, double started_s,
                         const std::function<void(const Needs&)>& needs = {});

// Gate, placement and fidelity of a cell that has run, as far as `settings` ask. Failing the gate becomes the outcome.
void check_cell(const CellRun& run, const Settings& settings, Measurement& m);

// The output as .npy, [batch, heads, q_len, value_dim].
Status save_output(const CellRun& run, const std::string& path);

}  // namespace attn
