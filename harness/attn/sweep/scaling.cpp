#include "attn/sweep/scaling.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "attn/cell/cell_run.hpp"
#include "attn/cell/values.hpp"
#include "attn/core/assert.hpp"
#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/seating.hpp"
#include "attn/kernels/machine/probes.hpp"
#include "attn/measure/bandwidth.hpp"
#include "attn/measure/scaling.hpp"
#include "attn/record/statistics.hpp"
#include "attn/record/table.hpp"

namespace attn {

namespace {

constexpr int repeats = 7;  // of which the least is taken: others on the machine only add to it
constexpr double least_together_s = 0.2;

// What of this machine a run's time depends on, at one thread and at all that it has.
struct Rates {
  int threads = 1;  // all
  BandwidthCurve read_of_one, read_of_all;
  double slowdown = 1;       // of a thread's arithmetic while all others compute
  double start_s = 0;        // of a region at all threads
  double bandwidth_gbs = 0;  // asked for; 0: as many times that of one as there are threads, beyond those that were measured
};

// Of single runs: among many short ones some meet nobody.
double least_of_runs(FunctionRef<void()> run) {
  double least_s = std::numeric_limits<double>::infinity();
  const double begin_s = monotonic_s();
  for (int i = 0; i < repeats || monotonic_s() - begin_s < least_together_s; ++i) {
    const double started_s = monotonic_s();
    run();
    least_s = std::min(least_s, monotonic_s() - started_s);
  }
  return least_s;
}

// FMA flops of a thread in a second of its own processor time, while all of the arena compute: others on the machine must not look like a clock
// that falls.
double flops_of_a_thread(const Arena& arena) {
  constexpr index_t iterations = 200'000;
  std::vector<double> rates(static_cast<std::size_t>(arena.threads()));
  double best = 0;
  for (int i = 0; i < repeats; ++i) {
    arena.execute([&] {
      parallel_tasks(arena.threads(), [&](index_t task, int) {
        const double begin_s = thread_cpu_s();
        const double flops = kernels::probe_fma(iterations);
        rates[static_cast<std::size_t>(task)] = flops / (thread_cpu_s() - begin_s);
      });
    });
    best = std::max(best, std::accumulate(rates.begin(), rates.end(), 0.0) / arena.threads());
  }
  return best;
}

double start_of_a_region_s(const Arena& arena) {
  double least_s = 0;
  arena.execute([&] { least_s = least_of_runs([&] { parallel_tasks(arena.threads(), [](index_t, int) {}); }); });
  return least_s;
}

// One arena at a time: that of fewer threads would hold the other back.
Rates measure_rates(double bandwidth_gbs, Pinning pinning) {
  Rates rates{.threads = usable_cores(), .bandwidth_gbs = bandwidth_gbs};
  rates.read_of_one = measure_read_bandwidth(Arena(1, pinning));
  rates.read_of_all = measure_read_bandwidth(Arena(rates.threads, pinning));
  rates.slowdown = std::max(1.0, flops_of_a_thread(Arena(1, pinning)) / flops_of_a_thread(Arena(rates.threads, pinning)));
  rates.start_s = rates.threads > 1 ? start_of_a_region_s(Arena(rates.threads, pinning)) : 0;
  return rates;
}

// What was not measured: regions begin as a tree of so many threads would, and each further core brings as much bandwidth.
ThreadModel model_of(const Rates& rates, int threads, double bytes) {
  const double cores = rates.threads;
  const double all_gbs = rates.read_of_all.at(bytes);
  ThreadModel model{.threads = threads, .bytes = bytes, .gbs_of_one = rates.read_of_one.at(bytes)};
  if (threads == 1) return model;
  model.start_s = cores > 1 ? rates.start_s * std::log2(threads) / std::log2(cores) : 0;
  model.slowdown = rates.slowdown;
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
  return {least_of(recordings), plan.workspace_bytes()};
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
  if (threads <= rates.threads) line.measured_s = least_of_runs([&] { run.again(); });
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

Recording least_of(const std::vector<Recording>& recordings) {
  ATTN_ASSERT(!recordings.empty());
  Recording least = recordings.front();
  const auto over_all = [&](auto figure) {
    double seconds = figure(recordings.front());
    for (const Recording& recording : recordings) seconds = std::min(seconds, figure(recording));
    return seconds;
  };
  double at_s = over_all([](const Recording& recording) { return recording.serial_s(); });
  for (std::size_t r = 0; r < least.regions.size(); ++r) {
    RecordedRegion& region = least.regions[r];
    region.begin_s = at_s;
    for (std::size_t t = 0; t < region.tasks_s.size(); ++t) {
      region.tasks_s[t] = over_all([&](const Recording& recording) { return recording.regions.at(r).tasks_s.at(t); });
      at_s += region.tasks_s[t];
    }
    region.end_s = at_s;
  }
  least.end_s = at_s;
  return least;
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
