#include "attn/sweep/plan.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "attn/core/text.hpp"
#include "attn/record/context.hpp"
#include "attn/sweep/grid.hpp"

namespace attn {

namespace {

// Seconds of a cell, within a factor of three or so on two kinds of machine (2 cores, AVX-512): a worker's start in each round; samples at
// a quarter of such a core's FMA peak and half its bandwidth; the gate and fidelity, 60 ns for a pair of query and key up to N = 2048.
double estimate_s(const Cell& cell, const SweepOptions& o, const Registry& registry) {
  const Problem& p = cell.problem;
  const auto variant = registry.configure(cell.variant);
  if (!variant || !(*variant)->supports(p)) return 0.1;
  const Cost cost = (*variant)->cost(p);
  const auto threads = static_cast<double>(cell.threads), samples = static_cast<double>(o.samples);
  const double run_s = std::max(cost.flops / (25e9 * threads), cost.bytes / 5e9);
  const double pairs = static_cast<double>(p.batch * p.heads * p.kv_len) * static_cast<double>(std::min<index_t>(p.q_len, 2048));
  return 0.3 * static_cast<double>(o.rounds) + (samples + 2 * static_cast<double>(o.rounds)) * std::max(o.sample_time_s, run_s) +
         60e-9 * pairs;
}

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
  for (const std::string& setting : setting_arguments(o)) arguments.push_back(setting);
  const SweepOptions usual;
  const auto add = [&](const char* flag, const std::string& value, const std::string& otherwise) {
    if (value != otherwise) arguments.insert(arguments.end(), {flag, value});
  };
  add("--timeout", format_number(o.timeout_s), format_number(usual.timeout_s));
  add("--memory-limit", o.memory_limit, usual.memory_limit);
  add("--order-seed", o.order_seed, usual.order_seed);
  add("--machine-root", o.machine_root, usual.machine_root);
  if (o.iso_error > 0) add("--iso-error", format_number(o.iso_error), "");
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
