// The sweep: plan the grid, measure cell after cell in worker processes, lose no row.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "attn/program/worker.hpp"
#include "attn/sweep/options.hpp"
#include "attn/sweep/worker.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// What runs instead of a sweep where --verify asks for it; an exit code.
using VerifyProgram = std::function<int(const SweepOptions& options, const Registry& registry)>;

// The program attn_sweep, also as its own worker, which answers `kinds`. Exit codes: attn/program/exit.hpp.
int sweep_main(int argc, char** argv, const std::vector<WorkerKind>& kinds, const VerifyProgram& verify);

}  // namespace attn
