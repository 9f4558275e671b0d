// The sweep: plan the grid, measure cell after cell in worker processes, lose no row.
#pragma once

#include <string>
#include <vector>

#include "attn/prove/call_meter.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// The program attn_sweep, also as its own worker (--worker as first argument). Exit codes: attn/program/exit.hpp. `meter` is null where the program has none.
int sweep_main(int argc, char** argv, CallMeter* meter);

// Arguments before --worker's question: what a worker needs to know of its sweep.
int worker_main(const std::vector<std::string>& plugins, CallMeter* meter);

}  // namespace attn
