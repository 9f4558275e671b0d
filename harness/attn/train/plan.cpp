#include "attn/train/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "attn/cell/values.hpp"
#include "attn/core/text.hpp"
#include "attn/exec/limits.hpp"
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

Result<std::optional<index_t>> parse_state_bytes(const std::string& text) {
  if (text.empty()) return std::optional<index_t>();
  const auto bytes = parse_bytes(text);
  if (!bytes) return bytes.refusal();
  return std::optional<index_t>(*bytes);
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
      [&] { return override_with(o.beam, "--beam", 1, 1024, s.beam); },
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
  if (!o.body.empty()) {
    const auto body = parse_body(o.body);
    if (!body) return refuse("--body: " + body.reason());
    s.body = *body;
  }
  // A model twice as wide has an MLP twice as wide.
  if (!o.width.empty() && o.mlp.empty() && s.layer.mlp > 0) s.layer.mlp = 2 * s.layer.width;
  if (!o.positions.empty()) {
    const auto positions = parse_positions(o.positions);
    if (!positions) return refuse("--positions: " + positions.reason());
    s.layer.positions = *positions;
  }
  if (!o.causal.empty()) {
    const auto causal = parse_one_causal(o.causal);
    if (!causal) return refuse("--causal: " + causal.reason());
    s.layer.causal = *causal;
  }
  s.test_samples = o.test_samples;
  s.extrapolate = o.extrapolate;
  return {};
}

// Sets the heads to those, of the width's divisors, that make a layer's state largest and not above so many bytes: sums over tokens hold more
// the wider a head is. Where they make no difference they stay.
Status fit_state(const Task& task, const Variant& variant, index_t most_bytes, RunSettings& settings) {
  const index_t usual = settings.layer.heads;
  index_t best = 0, best_bytes = 0, least_bytes = std::numeric_limits<index_t>::max();
  for (index_t heads = 1; heads <= settings.layer.width; ++heads) {
    RunSettings tried = settings;
    tried.layer.heads = heads;
    if (settings.layer.width % heads != 0 || !supports(model_shape(task, tried), variant)) continue;
    const index_t bytes = variant.state_bytes(mixer_problem(tried.layer, 1, task.length));
    least_bytes = std::min(least_bytes, bytes);
    if (bytes <= most_bytes && (bytes > best_bytes || (bytes == best_bytes && heads == usual))) best = heads, best_bytes = bytes;
  }
  if (best == 0 && least_bytes == std::numeric_limits<index_t>::max()) return {};  // refused at any heads, by a better sentence
  if (best == 0)
    return refuse(variant.name().label() + " keeps at least " + std::to_string(least_bytes) +
                  " bytes of a sequence, above --state-bytes " + std::to_string(most_bytes));
  settings.layer.heads = best;
  return {};
}

// The settings of one variant, or why it is not trained.
Status fit_to(const Task& task, const Variant& variant, const std::optional<index_t>& state_bytes, RunSettings& settings) {
  if (Status fits = state_bytes ? fit_state(task, variant, *state_bytes, settings) : Status(); !fits) return fits;
  if (Status status = supports(model_shape(task, settings), variant); !status) return status;
  return settings.extrapolate > 1 ? supports_longer(task, variant, settings) : Status();
}

RunSettings usual_settings(const Task& task) {
  const Recipe& recipe = task.recipe;
  RunSettings settings;
  settings.layer = recipe.layer;
  settings.layers = recipe.layers;
  settings.body = recipe.body;
  settings.batch = recipe.batch;
  settings.steps = recipe.steps;
  settings.rate = recipe.rate;
  return settings;
}

// Of the last point.
void add_runs(TrainPlan& plan, Job job, bool control, const std::string& refusal, const std::vector<index_t>& seeds,
              const std::vector<double>& rates) {
  for (const index_t seed : seeds) {
    for (const double rate : rates) {
      job.settings.seed = static_cast<std::uint64_t>(seed);
      job.settings.rate = rate;
      plan.runs.push_back({job, plan.points.size() - 1, control, refusal});
    }
  }
}

}  // namespace

Result<TrainPlan> plan_training(const TrainOptions& o, const Registry& registry) {
  const auto lengths = parse_axis(o.n, 1, index_t{1} << 24);
  if (!lengths) return refuse("--n: " + lengths.reason());
  const auto seeds = parse_axis(o.seed, 0, index_t{1} << 62);
  if (!seeds) return refuse("--seed: " + seeds.reason());
  const auto samples = parse_axis(o.samples, 0, index_t{1} << 40);
  if (!samples) return refuse("--samples: " + samples.reason());
  const auto state_bytes = parse_state_bytes(o.state_bytes);
  if (!state_bytes) return refuse("--state-bytes: " + state_bytes.reason());
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
      if (task) settings = usual_settings(**task);
      const auto rates = parse_rates(o.rate, settings.rate);
      if (!rates) return rates.refusal();
      if (Status status = apply(o, settings); !status) return status.refusal();
      if (task && (*task)->test_size > 0) settings.test_samples = std::min(settings.test_samples, (*task)->test_size);
      std::vector<std::pair<RunSettings, std::string>> fitted;  // of each variant: its settings, or why it is not trained
      for (const auto& variant : *variants) {
        RunSettings own = settings;
        const auto bytes = variant == variants->front() ? std::optional<index_t>() : *state_bytes;  // the control keeps its heads
        const Status fits = task ? fit_to(**task, *variant, bytes, own) : Status(task.refusal());
        fitted.emplace_back(own, fits ? "" : fits.reason());
      }
      for (const index_t count : *samples) {
        const Point point{task ? (*task)->name : name, length, count, task && count == 0 ? (*task)->control_bar : 0};
        const auto same = [&](const Point& p) { return p.task == point.task && p.length == length && p.samples == count; };
        if (std::ranges::any_of(plan.points, same)) continue;
        plan.points.push_back(point);
        for (std::size_t v = 0; v < variants->size(); ++v) {
          auto [own, refusal] = fitted[v];
          own.samples = count;
          add_runs(plan, {point.task, (*variants)[v]->name().text(), length, own}, v == 0, refusal, *seeds, *rates);
        }
      }
    }
  }
  std::stable_partition(plan.runs.begin(), plan.runs.end(), [](const PlannedRun& run) { return run.control; });
  return plan;
}

double tokens(const PlannedRun& run) {
  const RunSettings& s = run.job.settings;
  return run.refusal.empty() ? static_cast<double>(s.steps * s.batch * run.job.length) : 0;
}

namespace {

// Several variants and rates are lists of them.
std::vector<std::string> job_arguments(const Job& job, const std::string& variants, const std::string& rates,
                                       const TrainOptions& o) {
  const RunSettings& s = job.settings;
  std::vector<std::string> words;
  const auto add = [&](const char* flag, const std::string& value) {
    words.emplace_back(flag);
    words.push_back(value);
  };
  for (const auto& plugin : o.plugins) add("--plugin", plugin);
  if (!o.prefer.empty()) add("--prefer", o.prefer);
  add("--task", job.task);
  add("--variants", variants);
  add("--n", std::to_string(job.length));
  add("--seed", std::to_string(s.seed));
  add("--rate", rates);
  add("--samples", std::to_string(s.samples));
  add("--body", std::string(to_string(s.body)));
  add("--beam", std::to_string(s.beam));
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
  if (s.extrapolate > 1) add("--extrapolate", std::to_string(s.extrapolate));
  return words;
}

void add_new(std::vector<std::string>& list, const std::string& text) {
  if (std::ranges::find(list, text) == list.end()) list.push_back(text);
}

struct TrainBlock {
  std::vector<const PlannedRun*> runs;
  std::vector<std::string> variants, rates;
};

std::vector<TrainBlock> blocks_of(const TrainPlan& plan) {
  std::map<std::tuple<std::size_t, std::uint64_t, index_t>, TrainBlock> blocks;
  for (const PlannedRun& run : plan.runs) {
    TrainBlock& block = blocks[{run.point, run.job.settings.seed, run.job.settings.layer.heads}];
    block.runs.push_back(&run);
    add_new(block.variants, run.job.variant);
    add_new(block.rates, format_number(run.job.settings.rate));
  }
  std::vector<TrainBlock> list;
  for (auto& [key, block] : blocks) list.push_back(std::move(block));
  return list;
}

}  // namespace

std::string plan_text(const TrainPlan& plan, const TrainOptions& o) {
  // Of a core, at width 64 and one layer; the reference trainings lie within a factor of three.
  constexpr double tokens_per_s = 2e5;
  const auto jobs = static_cast<double>(o.jobs > 0 ? o.jobs : usable_cores());
  std::string lines;
  std::size_t number = 0;
  double total_s = 0;
  for (const TrainBlock& block : blocks_of(plan)) {
    const Job& first = block.runs.front()->job;
    double work = 0;
    for (const PlannedRun* run : block.runs)
      work += tokens(*run) * static_cast<double>(first.settings.layers * first.settings.layer.width) / 64;
    std::vector<std::string> words = job_arguments(first, join(block.variants, ","), join(block.rates, ","), o);
    const auto add = [&](const char* flag, const std::string& value, const std::string& otherwise) {
      if (value != otherwise) words.insert(words.end(), {flag, value});
    };
    const TrainOptions usual;
    add("--jobs", std::to_string(o.jobs), std::to_string(usual.jobs));
    add("--timeout", format_number(o.timeout_s), format_number(usual.timeout_s));
    add("--memory-limit", o.memory_limit, usual.memory_limit);
    const double seconds = 1 + work / tokens_per_s / std::min(jobs, static_cast<double>(block.runs.size()));
    lines += fmt::format("{}\t{:.1f}\t{}\t{} n={} seed={}\t{}\n", number++, seconds, block.runs.size(), first.task, first.length,
                         first.settings.seed, shell_quoted(words));
    total_s += seconds;
  }
  return fmt::format(
             "# attnbench plan 1\n# program attn_train\n# build {} commit {}\n# {} blocks, {} runs, about {:.0f} s\n"
             "block\tseconds\tcells\tproblem\targuments\n",
             build_tag(), source_commit(), number, plan.runs.size(), total_s) +
         lines;
}

std::string repeat_command(const Job& job, const TrainOptions& o) {
  std::vector<std::string> words = job_arguments(job, job.variant, format_number(job.settings.rate), o);
  words.insert(words.begin(), "attn_train");
  return shell_quoted(words);
}

}  // namespace attn
