// The sweep: plan the grid, measure cell after cell in worker processes, lose no row.
#pragma once

#include <string>
#include <vector>

#include "attn/prove/call_meter.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// Exit codes of the programs.
inline constexpr int exit_ok = 0;
inline constexpr int exit_failed_cell = 1;  // some cell inaccurate or crashed
inline constexpr int exit_usage = 2;
inline constexpr int exit_nothing_measured = 5;
inline constexpr int exit_not_written = 6;  // disk full or the like: what was finished before is kept
inline constexpr int exit_interrupted = 130;

// Text to stdout; exit_not_written where it takes none.
int print_and_exit(const std::string& text);

// The program attn_sweep, also as its own worker (--worker as first argument). `meter` is null where the program has none.
int sweep_main(int argc, char** argv, CallMeter* meter);

// Arguments before --worker's question: what a worker needs to know of its sweep.
int worker_main(const std::vector<std::string>& plugins, CallMeter* meter);

}  // namespace attn
