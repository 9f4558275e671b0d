#include "attn/sweep/race.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "attn/cell/axes.hpp"
#include "attn/core/text.hpp"
#include "attn/program/interrupt.hpp"
#include "attn/record/sink.hpp"
#include "attn/sweep/iso_error.hpp"

namespace attn {

namespace {

// Of this variant in the cell's place, against softmax attention.
Result<double> error_of(const Worker& worker, const SweepOptions& o, Cell cell, const std::string& variant) {
  Settings settings;
  settings.gate = settings.clock = false;
  settings.fidelity_seeds = static_cast<int>(o.fidelity_seeds);
  settings.pin = o.pin;
  cell.variant = variant;
  cell.scope = Scope::mixer;  // a layer has no error of its own
  const Measurement m = worker.ask(cell, settings);
  if (m.fidelity.done) return m.fidelity.relative;
  return refuse(m.outcome == Outcome::ok ? m.fidelity.reason : m.reason);
}

// Leaves the cell with its smallest budget, or as it is and refused.
Status fit(Cell& cell, const Worker& worker, const SweepOptions& o, const Registry& registry) {
  const auto budget = budget_of(*registry.find(VariantName::parse(cell.variant).value().id));
  if (budget) {
    // A budget of all keys costs what full attention costs.
    const index_t most = std::min(budget->high, cell.problem.kv_len);
    const auto found = smallest_budget(budget->low, most, o.iso_error, [&](index_t value) {
      return error_of(worker, o, cell, with_budget(cell.variant, *budget, value));
    });
    if (!found) return found.refusal();
    cell.variant = with_budget(cell.variant, *budget, found->value);
    return {};
  }
  const auto error = error_of(worker, o, cell, cell.variant);
  if (!error) return error.refusal();
  if (*error <= o.iso_error) return {};
  return refuse(fmt::format("has no budget to raise and an error of {:.3g}, more than {}", *error, format_number(o.iso_error)));
}

}  // namespace

std::map<std::string, std::string> fit_budgets(std::vector<Block>& blocks, const SweepOptions& o, const Registry& registry,
                                               const Schedule& schedule, const Worker& worker) {
  std::map<std::string, std::string> out_of_reach;
  for (Block& block : blocks) {
    for (Cell& cell : block.cells) {
      if (schedule.budget_is_used_up()) return out_of_reach;  // the cells that are left will be skipped
      const Status fitted = fit(cell, worker, o, registry);
      if (interrupted) return out_of_reach;
      const std::string why = fitted ? "" : fitted.reason();
      if (!fitted) out_of_reach[cell_key(cell)] = why;
      if (o.quiet) continue;
      tell(stderr, fmt::format("iso-error {}: {}{}\n", format_number(o.iso_error), title(cell, registry.short_text(cell.variant)),
                               why.empty() ? "" : ": " + why));
    }
  }
  return out_of_reach;
}

}  // namespace attn
