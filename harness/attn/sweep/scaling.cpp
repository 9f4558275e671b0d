#include "attn/sweep/scaling.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "attn/cell/cell_run.hpp"
#include "attn/cell/values.hpp"
#include "attn/core/assert.hpp"
#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/seating.hpp"
#include "attn/measure/machine.hpp"
#include "attn/measure/scaling.hpp"
#include "attn/record/statistics.hpp"
#include "attn/record/table.hpp"

namespace attn {

namespace {

constexpr int repeats = 5;
constexpr double sample_s = 0.01;  // at least, as a sweep's

// What of this machine a run's time depends on, at one thread and at all that it has.
struct Rates {
  int threads = 1;  // all
  Peak one, all;
  double start_s = 0;        // of a region at all threads
  double bandwidth_gbs = 0;  // asked for; 0: as many times that of one as there are threads, beyond those that were measured
};

double median_of_samples(double seconds_at_least, FunctionRef<void()> run) {
  std::vector<double> samples_s;
  for (int i = 0; i < repeats; ++i) {
    const double begin_s = monotonic_s();
    double runs = 0, took_s = 0;
    do {
      run();
      ++runs;
      took_s = monotonic_s() - begin_s;
    } while (took_s < seconds_at_least);
    samples_s.push_back(took_s / runs);
  }
  return median(std::move(samples_s));
}

Rates measure_rates(double bandwidth_gbs, Pinning pinning) {
  Rates rates{.threads = usable_cores(), .one = measure_peak(Arena(1, pinning), true)};
  rates.bandwidth_gbs = bandwidth_gbs;
  const Arena arena(rates.threads, pinning);
  rates.all = rates.threads > 1 ? measure_peak(arena, true) : rates.one;
  if (rates.threads > 1) {
    arena.execute([&] {
      constexpr int regions = 100;
      rates.start_s = median_of_samples(sample_s,
                                        [&] {
                                          for (int i = 0; i < regions; ++i) parallel_tasks(rates.threads, [](index_t, int) {});
                                        }) /
                      regions;
    });
  }
  return rates;
}

// What was not measured: regions begin as a tree of so many threads would, and each further core brings as much bandwidth.
ThreadModel model_of(const Rates& rates, int threads, double bytes) {
  const double cores = rates.threads;
  const double all_gbs = rates.all.read.at(bytes);
  ThreadModel model{.threads = threads, .bytes = bytes, .gbs_of_one = rates.one.read.at(bytes)};
  if (threads == 1) return model;
  model.start_s = cores > 1 ? rates.start_s * std::log2(threads) / std::log2(cores) : 0;
  model.slowdown = std::max(1.0, rates.one.fma_gflops * cores / rates.all.fma_gflops);
  model.gbs_of_all = threads <= rates.threads ? all_gbs : all_gbs * threads / cores;
  if (rates.bandwidth_gbs > 0 && threads > rates.threads) model.gbs_of_all = std::min(model.gbs_of_all, rates.bandwidth_gbs);
  return model;
}

struct Line {
  std::string title;
  int threads;
  Parallelism parallelism;
  Foretold foretold;
  index_t workspace_bytes;
  std::optional<double> measured_s;

  double speed_up() const { return parallelism.work_s / foretold.seconds; }
  // The longest task over what each thread would do, were all evenly busy.
  double largest() const { return parallelism.largest_s * threads / parallelism.work_s; }
  double error() const { return foretold.seconds / *measured_s - 1; }
  bool near() const {
    constexpr double allowed = 0.05, allowed_below_1_ms = 0.10;
    return std::abs(error()) <= (*measured_s < 1e-3 ? allowed_below_1_ms : allowed);
  }
};

Status not_foretold(const Cell& cell, const Variant& variant) {
  if (variant.is_guest()) return refuse("a guest's tasks are its own");
  if (cell.problem.pass != Pass::forward || cell.problem.ragged || cell.problem.page_rows > 0)
    return refuse("--scaling foretells forward passes of sequences of one length whose keys lie in a row");
  return {};
}

// A plan for so many threads on the arrays of a run, each of its tasks as one thread does it.
struct Rehearsed {
  Recording recording;
  index_t workspace_bytes;
};
Rehearsed rehearse(const CellRun& run, int threads) {
  Planned plan(run.variant(), run.problem(), threads);
  plan.equip(run.parameters());
  std::vector<Recording> recordings;
  Recorder recorder(threads);
  for (int i = 0; i <= repeats; ++i) {
    plan.run(run.arrays());
    recordings.push_back(recorder.take());
  }
  recordings.erase(recordings.begin());  // pages and caches
  return {typical_of(recordings), plan.workspace_bytes()};
}

Result<Line> line_of(Cell cell, int threads, const Rates& rates, bool pin, const Registry& registry) {
  cell.threads = std::min(threads, rates.threads);
  const auto variant = registry.configure(cell.variant);
  if (!variant) return variant.refusal();
  if (Status told = not_foretold(cell, **variant); !told) return told.refusal();
  std::optional<OnNodes> nodes;
  if (pin) nodes.emplace(seating(cell.threads), cell.numa);
  auto opened = CellRun::open(registry, cell, pin);
  if (!opened) return opened.refusal();
  CellRun& run = **opened;
  run.equip(make_parameters(run.specs(), cell.seed, run.fitted()));
  run.run();
  std::optional<Rehearsed> rehearsed;
  run.arena().execute([&] { rehearsed = rehearse(run, threads); });  // on a pinned thread
  Line line{.title = registry.short_text(cell.variant), .threads = threads, .workspace_bytes = rehearsed->workspace_bytes};
  line.parallelism = parallelism_of(rehearsed->recording);
  line.foretold = foretell(rehearsed->recording, model_of(rates, threads, run.cost().bytes));
  if (threads <= rates.threads) line.measured_s = median_of_samples(sample_s, [&] { run.again(); });
  return line;
}

std::string text_of(const Line& line, bool markdown) {
  const Parallelism& p = line.parallelism;
  const Foretold& f = line.foretold;
  std::vector<std::string> cells = {line.title,
                                    std::to_string(line.threads),
                                    std::to_string(p.tasks),
                                    std::to_string(p.regions),
                                    fmt::format("{:.2f}", line.largest()),
                                    fmt::format("{:.1f}", p.ratio()),
                                    human_time(p.work_s),
                                    human_time(f.seconds),
                                    fmt::format("{:.2f}", line.speed_up()),
                                    f.binds(),
                                    line.measured_s ? human_time(*line.measured_s) : "",
                                    line.measured_s ? fmt::format("{:+.1f} %{}", 100 * line.error(), line.near() ? "" : " !") : ""};
  if (markdown) return "| " + join(cells, " | ") + " |\n";
  return fmt::format("{:<24} {:>7} {:>7} {:>7} {:>8} {:>11} {:>9} {:>9} {:>8} {:<7} {:>9} {:>9}\n", cells[0], cells[1], cells[2],
                     cells[3], cells[4], cells[5], cells[6], cells[7], cells[8], cells[9], cells[10], cells[11]);
}

std::string head(bool markdown) {
  const std::vector<std::string> names = {"variant", "threads",   "tasks",    "regions", "largest",  "parallelism",
                                          "work",    "predicted", "speed-up", "binds",   "measured", "error"};
  if (!markdown)
    return fmt::format("{:<24} {:>7} {:>7} {:>7} {:>8} {:>11} {:>9} {:>9} {:>8} {:<7} {:>9} {:>9}\n", names[0], names[1], names[2],
                       names[3], names[4], names[5], names[6], names[7], names[8], names[9], names[10], names[11]);
  return "| " + join(names, " | ") + " |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|\n";
}

nlohmann::ordered_json json_of(const Line& line) {
  const Parallelism& p = line.parallelism;
  const Foretold& f = line.foretold;
  nlohmann::ordered_json j = {{"variant", line.title},
                              {"threads", line.threads},
                              {"tasks", p.tasks},
                              {"regions", p.regions},
                              {"fewest_tasks", p.fewest},
                              {"largest_of_mean_share", line.largest()},
                              {"parallelism", p.ratio()},
                              {"work_s", p.work_s},
                              {"span_s", p.span_s},
                              {"serial_s", p.serial_s},
                              {"workspace_bytes", line.workspace_bytes},
                              {"predicted_s", f.seconds},
                              {"predicted_speed_up", line.speed_up()},
                              {"binds", f.binds()},
                              {"idle_s", f.idle_s},
                              {"start_s", f.start_s},
                              {"memory_s", f.memory_s}};
  if (line.measured_s) j["measured_s"] = *line.measured_s;
  return j;
}

// How near the predictions came where they could be held to a measurement.
std::string verdict(const std::vector<Line>& lines) {
  std::vector<double> errors;
  std::ptrdiff_t near = 0;
  for (const Line& line : lines) {
    if (!line.measured_s || line.threads == 1) continue;
    errors.push_back(std::abs(line.error()));
    near += line.near();
  }
  if (errors.empty()) return "";
  return fmt::format("{} of {} within 5 % of the measured time, 10 % below 1 ms; median {:.1f} %\n", near, errors.size(),
                     100 * median(errors));
}

}  // namespace

Recording typical_of(const std::vector<Recording>& recordings) {
  ATTN_ASSERT(!recordings.empty());
  Recording typical = recordings.front();
  const auto over_all = [&](auto figure) {
    std::vector<double> list;
    for (const Recording& recording : recordings) list.push_back(figure(recording));
    return median(std::move(list));
  };
  double at_s = over_all([](const Recording& recording) { return recording.serial_s(); });
  for (std::size_t r = 0; r < typical.regions.size(); ++r) {
    RecordedRegion& region = typical.regions[r];
    region.begin_s = at_s;
    for (std::size_t t = 0; t < region.tasks_s.size(); ++t) {
      region.tasks_s[t] = over_all([&](const Recording& recording) { return recording.regions.at(r).tasks_s.at(t); });
      at_s += region.tasks_s[t];
    }
    region.end_s = at_s;
  }
  typical.end_s = at_s;
  return typical;
}

Result<std::string> scaling_text(const std::vector<Block>& blocks, const SweepOptions& o, const Registry& registry) {
  const auto threads = parse_axis(o.scaling, 1, 4096);
  if (!threads) return refuse("--scaling: " + threads.reason());
  const Rates rates = measure_rates(o.bandwidth_gbs, o.pin ? Pinning::cores : Pinning::none);
  const bool markdown = o.format == "md";
  std::string text, refusals;
  std::vector<Line> all;
  std::string last_heading;
  for (const Block& block : blocks) {
    if (block.cells.front().threads != blocks.front().cells.front().threads) continue;  // --scaling says how many
    std::vector<Line> lines;
    for (const Cell& cell : block.cells) {
      for (const index_t count : *threads) {
        auto line = line_of(cell, static_cast<int>(count), rates, o.pin, registry);
        if (line) {
          lines.push_back(*std::move(line));
          continue;
        }
        refusals += registry.short_text(cell.variant) + ": " + line.reason() + "\n";
        break;
      }
    }
    text += (text.empty() ? "" : "\n") + heading(block.cells.front()) + "\n" + (markdown ? "\n" : "") + head(markdown);
    for (const Line& line : lines) text += text_of(line, markdown);
    all.insert(all.end(), lines.begin(), lines.end());
  }
  if (o.format == "json") {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const Line& line : all) list.push_back(json_of(line));
    return list.dump(2) + "\n";
  }
  return text + "\n" + verdict(all) + refusals +
         fmt::format(
             "predicted: from each task's time on one thread, {:.2f} us for a region to begin and end on {} threads, and {}\n",
             1e6 * rates.start_s, rates.threads,
             o.bandwidth_gbs > 0 ? fmt::format("{} GB/s of memory for all beyond those", format_number(o.bandwidth_gbs))
                                 : "as much bandwidth for each further one");
}

}  // namespace attn
