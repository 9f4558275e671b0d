#include "attn/sweep/race.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "attn/cell/axes.hpp"
#include "attn/core/text.hpp"
#include "attn/program/interrupt.hpp"

namespace attn {

namespace {

std::optional<Budget> budget_of(const Cell& cell, const Registry& registry) {
  return attn::budget_of(*registry.find(VariantName::parse(cell.variant).value().id));
}

// A budget of all keys costs what full attention costs.
index_t most_of(const Budget& budget, const Cell& cell) { return std::max(budget.low, std::min(budget.high, cell.problem.kv_len)); }

// Of this variant in the cell's place, against softmax attention.
Result<double> figure_of(const Worker& worker, const SweepOptions& o, const Goal& goal, Cell cell, const std::string& variant) {
  Settings settings;
  settings.gate = settings.clock = false;
  settings.fidelity_seeds = static_cast<int>(o.fidelity_seeds);
  settings.pin = o.pin;
  cell.variant = variant;
  cell.scope = Scope::mixer;  // a layer has no error of its own
  const Measurement m = worker.ask(cell, settings);
  if (m.fidelity.done) return goal.of == Goal::Of::error ? m.fidelity.relative : m.fidelity.skill;
  return refuse(m.outcome == Outcome::ok ? m.fidelity.reason : m.reason);
}

}  // namespace

std::optional<Goal> goal_of(const SweepOptions& o) {
  if (o.iso_skill) return Goal{Goal::Of::skill, *o.iso_skill};
  if (o.iso_error > 0) return Goal{Goal::Of::error, o.iso_error};
  return {};
}

Result<std::string> fit_budget(Cell& cell, const Goal& goal, const Worker& worker, const SweepOptions& o, const Registry& registry,
                               const std::function<void(const std::string&)>& probed) {
  const auto budget = budget_of(cell, registry);
  if (!budget) {
    const auto figure = figure_of(worker, o, goal, cell, cell.variant);
    if (!figure) return figure.refusal();
    if (goal.reached_by(*figure)) return goal.text(*figure);
    return refuse(fmt::format("has no budget to raise and {}, {} {}", goal.text(*figure),
                              goal.of == Goal::Of::error ? "more than" : "less than", format_number(goal.value)));
  }
  const auto found = smallest_budget(budget->low, most_of(*budget, cell), goal, [&](index_t value) -> Result<double> {
    if (interrupted) return refuse("interrupted");
    const std::string variant = with_budget(cell.variant, *budget, value);
    auto figure = figure_of(worker, o, goal, cell, variant);
    probed(fmt::format("{}={}: {}", join(budget->options, "="), value, figure ? goal.text(*figure) : figure.reason()));
    return figure;
  });
  if (!found) return found.refusal();
  cell.variant = with_budget(cell.variant, *budget, found->value);
  return goal.text(found->reached);
}

int probes_of(const Cell& cell, const Registry& registry) {
  const auto budget = budget_of(cell, registry);
  if (!budget) return 1;
  // Doublings, the last one cut to the most, then four halvings to a sixteenth.
  return static_cast<int>(std::bit_width(static_cast<std::uint64_t>(most_of(*budget, cell) / budget->low))) + 5;
}

bool same_but_budget(const Cell& a, const Cell& b, const Registry& registry) {
  const auto without = [&](Cell cell) {
    if (const auto budget = budget_of(cell, registry)) cell.variant = with_budget(cell.variant, *budget, budget->low);
    return cell_key(cell);
  };
  return VariantName::parse(a.variant).value().id == VariantName::parse(b.variant).value().id && without(a) == without(b);
}

}  // namespace attn
