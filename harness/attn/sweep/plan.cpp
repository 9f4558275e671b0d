#include "attn/sweep/plan.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "attn/core/text.hpp"
#include "attn/record/context.hpp"
#include "attn/sweep/estimate.hpp"
#include "attn/sweep/grid.hpp"

namespace attn {

namespace {

std::string block_arguments(const Block& block, const SweepOptions& o) {
  std::vector<std::string> variants;
  for (const Cell& cell : block.cells) variants.push_back(cell.variant);
  Cell all = block.cells.front();
  all.variant = join(variants, ",");
  std::vector<std::string> arguments = arguments_for(all);
  for (const char* axis : {"threads", "isa"}) {
    const auto at = std::find(arguments.begin(), arguments.end(), "--" + axis_of(axis).flag);
    if (!o.asked(axis) && at != arguments.end()) arguments.erase(at, at + 2);
  }
  for (const std::string& setting : sweep_arguments(o)) arguments.push_back(setting);
  return shell_quoted(arguments);
}

}  // namespace

std::string plan_text(const std::vector<Block>& blocks, const SweepOptions& o, const Registry& registry) {
  std::string lines;
  double total_s = 0;
  std::size_t cells = 0;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    double seconds = 0;
    for (const Cell& cell : blocks[b].cells) seconds += estimate_s(cell, o, registry);
    lines += fmt::format("{}\t{:.1f}\t{}\t{}\t{}\n", b, seconds, blocks[b].cells.size(), heading(blocks[b].cells.front()),
                         block_arguments(blocks[b], o));
    total_s += seconds;
    cells += blocks[b].cells.size();
  }
  return fmt::format(
             "# attnbench plan 1\n# build {} commit {}\n# {} blocks, {} cells, about {:.0f} "
             "s\nblock\tseconds\tcells\tproblem\targuments\n",
             build_tag(), source_commit(), blocks.size(), cells, total_s) +
         lines;
}

}  // namespace attn
