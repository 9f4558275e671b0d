// What a sweep will take, before anything is measured.
#pragma once

#include <string>
#include <vector>

#include "attn/cell/grid.hpp"
#include "attn/core/result.hpp"
#include "attn/sweep/options.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// --dry-run: each cell with its memory and its time, and the sums. Refused where --memory-limit is no size.
Result<std::string> foreseen_text(const std::vector<Block>& blocks, const SweepOptions& options, const Registry& registry);

// "12 cells, about 40 s", without planning any.
std::string foreseen_time(const std::vector<Block>& blocks, const SweepOptions& options, const Registry& registry);

// Of --list: every variant at the longest length asked for, the defaults of other axes otherwise.
Result<std::string> needs_of_all_text(SweepOptions options, const Registry& registry);

}  // namespace attn
