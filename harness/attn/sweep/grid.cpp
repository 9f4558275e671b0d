#include "attn/sweep/grid.hpp"

#include "attn/core/text.hpp"
#include "attn/record/context.hpp"

namespace attn {

Result<std::vector<Block>> make_grid(const SweepOptions& o, const Registry& registry, std::vector<std::string>* notes) {
  auto grid = parse_grid(o.axes, registry);
  if (!grid) return grid.refusal();
  if (!o.against.empty()) {
    const auto reference = registry.configure(o.against);
    if (!reference) return refuse("--against: " + reference.reason());
    grid->front().add((*reference)->name().text());  // it has a row of its own
  }
  return make_blocks(*grid, notes, &registry);
}

std::vector<std::string> setting_arguments(const SweepOptions& o) {
  std::vector<std::string> arguments;
  const auto add = [&](const char* flag, const std::string& value) { arguments.insert(arguments.end(), {flag, value}); };
  add("--samples", std::to_string(o.samples));
  add("--rounds", std::to_string(o.rounds));
  add("--sample-time", format_number(o.sample_time_s));
  const SweepOptions usual;
  if (o.fidelity != usual.fidelity) add("--fidelity", o.fidelity);
  if (o.fidelity_seeds != usual.fidelity_seeds) add("--fidelity-seeds", std::to_string(o.fidelity_seeds));
  if (!o.against.empty()) add("--against", o.against);
  if (!o.launcher.empty()) add("--launcher", o.launcher);
  if (!o.pin) arguments.emplace_back("--no-pin");
  for (const auto& plugin : o.plugins) add("--plugin", plugin);
  if (!o.prefer.empty()) add("--prefer", o.prefer);
  for (const auto& guest : o.guests) add("--guest", guest);
  return arguments;
}

std::vector<std::string> sweep_arguments(const SweepOptions& o) {
  std::vector<std::string> arguments = setting_arguments(o);
  const SweepOptions usual;
  const auto add = [&](const char* flag, const std::string& value, const std::string& otherwise) {
    if (value != otherwise) arguments.insert(arguments.end(), {flag, value});
  };
  add("--steady", format_number(o.steady_percent), format_number(usual.steady_percent));
  add("--timeout", format_number(o.timeout_s), format_number(usual.timeout_s));
  add("--memory-limit", o.memory_limit, usual.memory_limit);
  add("--order-seed", o.order_seed, usual.order_seed);
  add("--machine-root", o.machine_root, usual.machine_root);
  if (o.iso_error > 0) add("--iso-error", format_number(o.iso_error), "");
  if (o.iso_skill) add("--iso-skill", format_number(*o.iso_skill), "");
  return arguments;
}

std::string repeat_command(const Cell& cell, const SweepOptions& o) {
  std::vector<std::string> arguments{"attn_sweep"};
  for (const auto& more : {arguments_for(cell), setting_arguments(o)}) arguments.insert(arguments.end(), more.begin(), more.end());
  return shell_quoted(arguments);
}

}  // namespace attn
