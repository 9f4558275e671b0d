#include "attn/train/plan.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "attn/cell/values.hpp"
#include "attn/core/text.hpp"
#include "attn/record/context.hpp"

namespace attn {

namespace {

constexpr const char* control_variant = "full";

Result<std::vector<double>> parse_rates(const std::string& text, double usual) {
  if (text == "table") return std::vector<double>{usual};
  if (text == "sweep") return std::vector<double>{usual / 3, usual, usual * 3};
  std::vector<double> rates;
  for (const auto item : split(text, ',')) {
    const auto rate = parse_number(trim(item));
    if (!rate) return refuse("--rate: " + rate.reason() + "; accepted: table, sweep, or a list such as 0.001,0.003");
    if (!(*rate > 0 && std::isfinite(*rate))) return refuse("--rate: " + std::string(trim(item)) + " is not above 0");
    if (std::ranges::find(rates, *rate) == rates.end()) rates.push_back(*rate);
  }
  return rates;
}

// A field that overrides the recipe.
Status override_with(const std::string& text, const char* flag, index_t low, index_t high, index_t& value) {
  if (text.empty()) return {};
  const auto given = parse_integer(text);
  if (!given) return refuse(std::string(flag) + ": " + given.reason());
  if (*given < low || *given > high)
    return refuse(std::string(flag) + ": " + text + " is outside " + std::to_string(low) + ".." + std::to_string(high));
  value = *given;
  return {};
}

Status apply(const TrainOptions& o, RunSettings& s) {
  const std::vector<std::function<Status()>> overrides = {
      [&] { return override_with(o.width, "--width", 1, 4096, s.layer.width); },
      [&] { return override_with(o.heads, "--heads", 1, 256, s.layer.heads); },
      [&] { return override_with(o.layers, "--layers", 1, 64, s.layers); },
      [&] { return override_with(o.mlp, "--mlp", 0, 65536, s.layer.mlp); },
      [&] { return override_with(o.conv, "--conv", 0, 64, s.layer.conv); },
      [&] { return override_with(o.batch, "--batch", 1, 65536, s.batch); },
      [&] { return override_with(o.steps, "--steps", 1, 100'000'000, s.steps); },
  };
  for (const auto& set : overrides) {
    if (Status status = set(); !status) return status;
  }
  // A model twice as wide has an MLP twice as wide.
  if (!o.width.empty() && o.mlp.empty() && s.layer.mlp > 0) s.layer.mlp = 2 * s.layer.width;
  if (!o.positions.empty()) {
    const auto positions = parse_positions(o.positions);
    if (!positions) return refuse("--positions: " + positions.reason());
    s.layer.positions = *positions;
  }
  if (!o.causal.empty()) {
    if (o.causal != "no" && o.causal != "yes") return refuse("--causal: '" + o.causal + "' is not one of no, yes");
    s.layer.causal = o.causal == "yes";
  }
  s.test_samples = o.test_samples;
  return {};
}

}  // namespace

Result<TrainPlan> plan_training(const TrainOptions& o, const Registry& registry) {
  const auto lengths = parse_axis(o.n, 1, index_t{1} << 24);
  if (!lengths) return refuse("--n: " + lengths.reason());
  const auto seeds = parse_axis(o.seed, 0, index_t{1} << 62);
  if (!seeds) return refuse("--seed: " + seeds.reason());
  auto variants = registry.configure_list(o.variants);
  if (!variants) return refuse("--variants: " + variants.reason());
  auto control = registry.configure(control_variant);
  if (!control) return control.refusal();
  std::erase_if(*variants, [&](const auto& v) { return v->name() == (*control)->name(); });
  variants->insert(variants->begin(), *std::move(control));

  TrainPlan plan;
  for (const std::string& name : o.tasks) {
    if (Status status = check_task(name); !status) return refuse("--task: " + status.reason());
    for (const index_t length : *lengths) {
      const auto task = make_task(name, length);
      RunSettings settings;
      if (task) {
        const Recipe& recipe = (*task)->recipe;
        settings.layer = recipe.layer;
        settings.layers = recipe.layers;
        settings.batch = recipe.batch;
        settings.steps = recipe.steps;
        settings.rate = recipe.rate;
      }
      const auto rates = parse_rates(o.rate, settings.rate);
      if (!rates) return rates.refusal();
      if (Status status = apply(o, settings); !status) return status.refusal();
      const Point point{task ? (*task)->name : name, length, task ? (*task)->control_bar : 0};
      const auto same = [&](const Point& p) { return p.task == point.task && p.length == length; };
      if (std::ranges::any_of(plan.points, same)) continue;
      plan.points.push_back(point);
      for (const auto& variant : *variants) {
        std::string refusal;
        if (!task) {
          refusal = task.reason();
        } else if (const Status status = supports(model_shape(**task, settings), *variant); !status) {
          refusal = status.reason();
        }
        for (const index_t seed : *seeds) {
          for (const double rate : *rates) {
            PlannedRun run{{plan.points.back().task, variant->name().text(), length, settings},
                           plan.points.size() - 1,
                           variant == variants->front(),
                           refusal};
            run.job.settings.seed = static_cast<std::uint64_t>(seed);
            run.job.settings.rate = rate;
            plan.runs.push_back(std::move(run));
          }
        }
      }
    }
  }
  std::stable_partition(plan.runs.begin(), plan.runs.end(), [](const PlannedRun& run) { return run.control; });
  return plan;
}

std::string repeat_command(const Job& job, const TrainOptions& o) {
  const RunSettings& s = job.settings;
  std::vector<std::string> words = {"attn_train"};
  const auto add = [&](const char* flag, const std::string& value) {
    words.emplace_back(flag);
    words.push_back(value);
  };
  for (const auto& plugin : o.plugins) add("--plugin", plugin);
  add("--task", job.task);
  add("--variants", job.variant);
  add("--n", std::to_string(job.length));
  add("--seed", std::to_string(s.seed));
  add("--rate", format_number(s.rate));
  add("--width", std::to_string(s.layer.width));
  add("--heads", std::to_string(s.layer.heads));
  add("--layers", std::to_string(s.layers));
  add("--mlp", std::to_string(s.layer.mlp));
  add("--conv", std::to_string(s.layer.conv));
  add("--positions", std::string(to_string(s.layer.positions)));
  add("--causal", s.layer.causal ? "yes" : "no");
  add("--batch", std::to_string(s.batch));
  add("--steps", std::to_string(s.steps));
  add("--test-samples", std::to_string(s.test_samples));
  return shell_quoted(words);
}

}  // namespace attn
