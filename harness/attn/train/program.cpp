#include "attn/train/program.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <tuple>

#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/program/components.hpp"
#include "attn/program/exit.hpp"
#include "attn/program/flags.hpp"
#include "attn/program/interrupt.hpp"
#include "attn/program/process.hpp"
#include "attn/program/progress.hpp"
#include "attn/program/renamed.hpp"
#include "attn/program/worker_end.hpp"
#include "attn/record/context.hpp"
#include "attn/record/sink.hpp"
#include "attn/train/plan.hpp"
#include "attn/train/row.hpp"
#include "attn/variant/plugin.hpp"

namespace attn {

namespace {

int usage(const std::string& reason) { return fail(exit_usage, "attn_train", reason); }

std::string problem(const Job& job) {
  return fmt::format("{} N={}", job.task, job.length) +
         (job.settings.samples > 0 ? fmt::format(" samples={}", job.settings.samples) : "");
}

std::string title(const Registry& registry, const Job& job) {
  return fmt::format("{} {} seed={} rate={:.3g}", problem(job), registry.short_text(job.variant), job.settings.seed,
                     job.settings.rate);
}

// What is known of a point's control.
struct Control {
  std::size_t open = 0;  // runs that have not ended
  double best = -1;      // accuracy
  std::string refusal;
  std::vector<TrainRow> waiting;  // its own rows, until all have ended
};

struct Training {
  TrainOptions options;
  Registry registry;
  TrainPlan plan;
  index_t memory_limit_bytes = 0;
  std::optional<AppendFile> csv;
  std::set<std::string> finished;  // keys that the CSV holds already
  std::vector<TrainRow> rows;      // those that --resume goes on with first
  std::vector<Control> controls;   // one a point
  Status broken;                   // writing failed
  std::mutex lock;
};

TrainRow row_of(const Training& t, const PlannedRun& run) {
  TrainRow row = make_train_row(run.job);
  row.describe(t.registry);
  if (run.refusal.empty()) {
    const auto variant = t.registry.configure(run.job.variant);
    row.state_bytes = (*variant)->state_bytes(mixer_problem(run.job.settings.layer, 1, run.job.length));
  }
  row.commit = source_commit();
  row.command = repeat_command(run.job, t.options);
  row.verdict = run.refusal.empty() ? Verdict::ok : Verdict::refused;
  row.reason = run.refusal;
  return row;
}

Verdict verdict_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::timed_out: return Verdict::timed_out;
    case Outcome::out_of_memory: return Verdict::out_of_memory;
    default: return Verdict::crashed;
  }
}

void read_end(const ProcessEnd& end, double timeout_s, TrainRow& row) {
  const auto failed = [&](Verdict verdict, const std::string& reason) {
    row.verdict = verdict;
    row.reason = reason;
  };
  if (end.how == ProcessEnd::How::answered) {
    try {
      index_t peak_memory_bytes = -1;
      RunResult result = result_from_json(end.answer, peak_memory_bytes);
      take_result(row, std::move(result), peak_memory_bytes);
      if (row.result.ending == Ending::diverged)
        failed(Verdict::diverged, fmt::format("the loss or its gradient was no number at step {}", row.result.steps));
      if (row.result.ending == Ending::finished && row.result.still_improving)
        failed(Verdict::still_improving, fmt::format("the loss was still falling when the {} steps ended", row.result.steps));
      return;
    } catch (const std::exception&) {  // torn
    }
  }
  const auto [outcome, reason] = no_answer(end, timeout_s);
  failed(verdict_of(outcome), reason);
}

// What the point's control says about a row.
void judge(const Point& point, const Control& control, TrainRow& row) {
  if (!row.trained() || point.control_bar == 0) return;
  if (control.best >= point.control_bar) return;
  row.verdict = Verdict::inconclusive;
  row.reason =
      control.best < 0
          ? "there is no result of full attention to compare with" + (control.refusal.empty() ? "" : ": " + control.refusal)
          : fmt::format("full attention reached {:.3f} here, below the bar of {:.3g}", control.best, point.control_bar);
}

void write_row(Training& t, TrainRow row) {
  if (t.broken) t.broken = t.csv->append(train_schema().line(row));
  t.rows.push_back(std::move(row));
}

void write_waiting(Training& t, std::size_t point) {
  Control& control = t.controls[point];
  for (TrainRow& row : control.waiting) {
    judge(t.plan.points[point], control, row);
    write_row(t, std::move(row));
  }
  control.waiting.clear();
}

void note_control(Control& control, const TrainRow& row) {
  if (row.trained()) {
    control.best = std::max(control.best, row.result.accuracy);
  } else {
    control.refusal = row.reason;
  }
}

// Under the lock.
void take_row(Training& t, const PlannedRun& run, TrainRow row) {
  row.finished = utc_now();
  Control& control = t.controls[run.point];
  if (!run.control) {
    judge(t.plan.points[run.point], control, row);
    return write_row(t, std::move(row));
  }
  note_control(control, row);
  control.waiting.push_back(std::move(row));
  if (--control.open == 0) write_waiting(t, run.point);
}

std::string outcome_text(const TrainRow& row) {
  if (!row.trained()) return std::string(to_string(row.verdict)) + " (" + row.reason + ")";
  return fmt::format("accuracy {:.4f} after {} steps, loss {:.3g}, {:.1f} s", row.result.accuracy, row.result.steps,
                     row.result.loss, row.result.train_s);
}

void run_one(Training& t, const PlannedRun& run, Progress& progress) {
  if (interrupted) return;
  TrainRow row = row_of(t, run);
  if (run.refusal.empty()) {
    const index_t steps = run.job.settings.steps;
    const ProcessEnd end = run_worker(
        worker_arguments(train_kind().name, t.options.plugins, prefer_from(t.options.prefer)), to_json(run.job),
        t.options.timeout_s, t.memory_limit_bytes, &interrupted, [&](std::string_view line) {
          long long step = 0;
          double loss = 0, accuracy = 0;
          if (std::sscanf(std::string(line).c_str(), "step %lld loss %lf accuracy %lf", &step, &loss, &accuracy) != 3) return false;
          const std::lock_guard guard(t.lock);
          progress.under_way(title(t.registry, run.job), tokens(run) * static_cast<double>(step) / static_cast<double>(steps),
                             fmt::format("step {}/{} loss {:.4g} accuracy {:.3f}", step, steps, loss, accuracy));
          return true;
        });
    if (end.how == ProcessEnd::How::stopped) return;
    read_end(end, t.options.timeout_s, row);
  }
  const std::lock_guard guard(t.lock);
  progress.end(title(t.registry, run.job), tokens(run), outcome_text(row));
  take_row(t, run, std::move(row));
}

// Controls first: what they say must be known when the others end.
void run_all(Training& t, int jobs, Progress& progress) {
  const Arena arena(jobs);
  for (const bool control : {true, false}) {
    std::vector<const PlannedRun*> part;
    for (const PlannedRun& run : t.plan.runs) {
      if (run.control != control) continue;
      if (t.finished.contains(job_key(run.job))) {
        progress.skip(tokens(run));
      } else {
        part.push_back(&run);
      }
    }
    arena.execute([&] {
      parallel_tasks(static_cast<index_t>(part.size()),
                     [&](index_t i, int) { run_one(t, *part[static_cast<std::size_t>(i)], progress); });
    });
  }
  for (std::size_t point = 0; point < t.controls.size(); ++point) write_waiting(t, point);
}

Status open_csv(Training& t) {
  const TrainOptions& o = t.options;
  const bool go_on = o.resume && ::access(o.out.c_str(), F_OK) == 0;
  t.controls.resize(t.plan.points.size());
  std::map<std::string, std::size_t> control_points;  // by the key of the run
  for (const auto& run : t.plan.runs) {
    if (run.control) control_points[job_key(run.job)] = run.point;
  }
  std::size_t keep = 0;
  if (go_on) {
    auto old = read_rows(o.out, train_schema());
    if (!old) return refuse("--resume: " + old.reason());
    for (const TrainRow& row : old->rows) {
      const std::string key = train_schema().key(row);
      t.finished.insert(key);
      if (const auto point = control_points.find(key); point != control_points.end()) note_control(t.controls[point->second], row);
    }
    keep = old->whole_bytes;
    t.rows = std::move(old->rows);
  }
  for (const auto& run : t.plan.runs) {
    if (run.control && !t.finished.contains(job_key(run.job))) ++t.controls[run.point].open;
  }
  const auto mode = go_on ? AppendFile::Mode::extend : (o.force ? AppendFile::Mode::replace : AppendFile::Mode::create);
  auto csv = AppendFile::open(o.out, mode, keep);
  if (!csv) return refuse("--out: " + csv.reason());
  t.csv = *std::move(csv);
  if (!go_on || keep == 0) return t.csv->append(train_schema().header());
  return {};
}

std::string list_text() {
  std::string text;
  for (const TaskType& type : task_types()) {
    text += fmt::format("{:<20} {}\n", type.id, type.doc);
    for (const auto& o : type.options) {
      text += fmt::format("{:<20}   {}={}  ({} {}) {}\n", "", o.name, o.default_value, o.type, o.range, o.doc);
    }
  }
  return text;
}

int dry_run(const Training& t) {
  std::string text;
  for (const PlannedRun& run : t.plan.runs) {
    text += title(t.registry, run.job) + (run.control ? " (control)" : "") +
            (run.refusal.empty() ? "" : ": refused, " + run.refusal) + "\n";
  }
  return print_and_exit(text + fmt::format("{} runs\n", t.plan.runs.size()));
}

// "ok", or of seeds that ended differently "ok 2, diverged 1".
std::string verdicts(const std::vector<const TrainRow*>& runs) {
  std::map<std::string_view, std::size_t> counts;
  for (const TrainRow* row : runs) ++counts[to_string(row->verdict)];
  std::string text;
  for (const auto& [verdict, count] : counts)
    text += (text.empty() ? "" : ", ") + std::string(verdict) + (counts.size() > 1 ? fmt::format(" {}", count) : "");
  return text;
}

// One line a variant and point: of the rate that learned best, the mean over the seeds that were trained to the end.
std::string table(const std::vector<TrainRow>& rows) {
  using Point = std::tuple<std::string, index_t, index_t>;
  std::map<Point, std::map<std::string, std::map<double, std::vector<const TrainRow*>>>> points;
  for (const TrainRow& row : rows)
    points[{row.job.task, row.job.length, row.job.settings.samples}][row.name][row.job.settings.rate].push_back(&row);
  std::string text;
  for (const auto& [point, variants] : points) {
    const Job& any = variants.begin()->second.begin()->second.front()->job;
    text += fmt::format("\n{}\n{:<40} {:>8} {:>8} {:>6} {:>8} {:>8} {:>8}  {}\n", problem(any), "variant", "accuracy", "skill",
                        "seeds", "rate", "to 99 %", "steps/s", "verdict");
    for (const auto& [variant, by_rate] : variants) {
      const auto mean = [](const std::vector<const TrainRow*>& runs, auto value) {
        double sum = 0, count = 0;
        for (const TrainRow* row : runs) {
          if (row->trained()) sum += value(*row), count += 1;
        }
        return count > 0 ? sum / count : -1.0;
      };
      const auto learned = [&](const auto& entry) {
        return mean(entry.second, [](const TrainRow& r) { return r.result.train_accuracy; });
      };
      const auto best =
          std::max_element(by_rate.begin(), by_rate.end(), [&](const auto& a, const auto& b) { return learned(a) < learned(b); });
      const TrainRow& first = *best->second.front();
      if (learned(*best) < 0) {
        text += fmt::format("{:<40} {} ({})\n", variant, to_string(first.verdict), first.reason);
        continue;
      }
      const double to_99 = mean(best->second, [](const TrainRow& r) { return static_cast<double>(r.result.steps_to_99); });
      text += fmt::format("{:<40} {:>8.4f} {:>8.3f} {:>6} {:>8.3g} {:>8} {:>8.1f}  {}\n", variant,
                          mean(best->second, [](const TrainRow& r) { return r.result.accuracy; }),
                          mean(best->second, [](const TrainRow& r) { return r.skill.value_or(0); }), best->second.size(),
                          best->first, to_99 > 0 ? fmt::format("{:.0f}", to_99) : "-",
                          mean(best->second, [](const TrainRow& r) { return r.steps_per_s.value_or(0); }), verdicts(best->second));
    }
  }
  return text;
}

int exit_code(const std::vector<TrainRow>& rows) {
  const auto any = [&](auto predicate) { return std::any_of(rows.begin(), rows.end(), predicate); };
  if (interrupted) return exit_interrupted;
  if (any([](const TrainRow& r) { return r.verdict == Verdict::diverged || r.verdict == Verdict::crashed; }))
    return exit_failed_cell;
  return rows.empty() || any([](const TrainRow& r) { return r.trained(); }) ? exit_ok : exit_nothing_measured;
}

int run(Training& t, const std::vector<std::string>& command_line) {
  TrainOptions& o = t.options;
  auto plan = plan_training(o, t.registry);
  if (!plan) return usage(plan.reason());
  tell_of_renamed(t.registry, {o.variants}, "attn_train");
  t.plan = *std::move(plan);
  if (o.dry_run) return dry_run(t);
  if (!o.plan.empty()) {
    if (Status status = write_file(o.plan, plan_text(t.plan, o)); !status)
      return fail(exit_not_written, "attn_train", "--plan: " + status.reason());
    return print_and_exit(fmt::format("{} points in {}\n", t.plan.points.size(), o.plan));
  }

  const int jobs = o.jobs > 0 ? static_cast<int>(o.jobs) : usable_cores();
  if (const std::string crowded = read_limits().crowded(jobs); !crowded.empty() && !o.quiet)
    tell(stderr, "attn_train: --jobs: " + crowded + "\n");
  const auto memory_limit_bytes = read_memory_limit(o.memory_limit, jobs);
  if (!memory_limit_bytes) return usage(memory_limit_bytes.reason());
  t.memory_limit_bytes = *memory_limit_bytes;
  if (o.out.empty()) {
    auto made = make_new_file("results/" + utc_stamp(), ".train.csv");
    if (!made) return fail(exit_not_written, "attn_train", made.reason());
    o.out = *std::move(made);
  }
  if (Status status = open_csv(t); !status) return usage(status.reason());
  const std::string go_on = shell_quoted({command_line.front(), "--out", o.out, "--resume"});
  const std::size_t held = t.rows.size();

  catch_interrupts();
  if (Status status = write_file(context_path(o.out), context_json(command_line, {}, train_schema(), asked_json(o))); !status)
    return not_written("attn_train", status.reason(), go_on);

  {
    double work = 0;
    for (const PlannedRun& planned : t.plan.runs) work += tokens(planned);
    Progress progress(t.plan.runs.size(), work, o.quiet);
    run_all(t, jobs, progress);
  }
  if (!t.broken) return not_written("attn_train", t.broken.reason(), go_on);
  if (!o.quiet) tell(stdout, table(t.rows) + "\n");
  if (held > 0) tell(stdout, fmt::format("{} new, {} from before\n", t.rows.size() - held, held));
  tell(stdout, fmt::format("{} rows in {}\n", t.rows.size(), o.out));
  if (interrupted) tell_of_interruption("attn_train", go_on);
  return exit_code(t.rows);
}

}  // namespace

int train_main(int argc, char** argv) {
  open_standard_streams();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (is_worker(arguments)) return worker_main(arguments, {train_kind()});

  const TrainCommandLine line = parse_train_command_line(arguments);
  if (line.exit) {
    if (line.exit_code == 0) return print_and_exit(line.text);
    tell(stderr, line.text);
    return line.exit_code;
  }
  Training t;
  t.options = line.options;
  register_builtin_variants(t.registry);
  if (Status status = load_plugins(t.options.plugins, t.registry, prefer_from(t.options.prefer)); !status)
    return usage(status.reason());
  if (t.options.version) return print_and_exit(program_version());
  if (t.options.columns) return print_and_exit(columns_text(train_schema().infos()));
  if (t.options.list) return print_and_exit(list_text());
  return run(t, {argv, argv + argc});
}

}  // namespace attn
