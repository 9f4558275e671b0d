// What a sweep measures.
#pragma once

#include <string>
#include <vector>

#include "attn/cell/grid.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// In ascending order of length.
Result<std::vector<Block>> make_grid(const SweepOptions& options, const Registry& registry);

// The command that measures this cell alone.
std::string repeat_command(const Cell& cell, const SweepOptions& options);

}  // namespace attn
