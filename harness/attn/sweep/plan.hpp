// A grid as a list of blocks, for machines that measure one each: scripts/cluster.
#pragma once

#include <string>
#include <vector>

#include "attn/cell/grid.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// Tab-separated lines behind lines of '#' that name the build: number of the block, estimated seconds, cells, heading, and what attn_sweep
// is to be called with, quoted for a shell. Threads and instruction set are the node's own where they are not asked for.
std::string plan_text(const std::vector<Block>& blocks, const SweepOptions& options, const Registry& registry);

}  // namespace attn
