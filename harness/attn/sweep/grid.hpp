// From axes to cells.
#pragma once

#include <string>
#include <vector>

#include "attn/cell/cell.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// Cells of one block share everything but the variant; blocks come in ascending order of length.
struct Block {
  std::vector<Cell> cells;
};

Result<std::vector<Block>> make_grid(const SweepOptions& options, const Registry& registry);

// The command that measures this cell alone.
std::string repeat_command(const Cell& cell, const SweepOptions& options);

}  // namespace attn
