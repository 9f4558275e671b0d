// What a sweep measures.
#pragma once

#include <string>
#include <vector>

#include "attn/cell/grid.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// In ascending order of length. `notes`: what was asked for and an input overrides.
Result<std::vector<Block>> make_grid(const SweepOptions& options, const Registry& registry,
                                     std::vector<std::string>* notes = nullptr);

// How cells are measured, as flags: what a repeated cell needs beside its own.
std::vector<std::string> setting_arguments(const SweepOptions& options);

// The same and what else belongs to a sweep whose cells are measured elsewhere or later: limits, order, the goal of a race.
std::vector<std::string> sweep_arguments(const SweepOptions& options);

// The command that measures this cell alone.
std::string repeat_command(const Cell& cell, const SweepOptions& options);

}  // namespace attn
