#include "attn/sweep/sweep.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/guest/folder.hpp"
#include "attn/guest/host.hpp"
#include "attn/guest/spec.hpp"
#include "attn/inputs/file.hpp"
#include "attn/measure/doctor.hpp"
#include "attn/measure/machine_state.hpp"
#include "attn/program/components.hpp"
#include "attn/program/exit.hpp"
#include "attn/program/flags.hpp"
#include "attn/program/interrupt.hpp"
#include "attn/program/process.hpp"
#include "attn/program/progress.hpp"
#include "attn/program/renamed.hpp"
#include "attn/ranks/crew.hpp"
#include "attn/record/context.hpp"
#include "attn/record/sink.hpp"
#include "attn/record/table.hpp"
#include "attn/record/terminal.hpp"
#include "attn/sweep/begun.hpp"
#include "attn/sweep/explain.hpp"
#include "attn/sweep/foresee.hpp"
#include "attn/sweep/grid.hpp"
#include "attn/sweep/listing.hpp"
#include "attn/sweep/measuring.hpp"
#include "attn/sweep/outputs.hpp"
#include "attn/sweep/plan.hpp"
#include "attn/sweep/scaling.hpp"
#include "attn/sweep/schedule.hpp"
#include "attn/sweep/worker.hpp"
#include "attn/variant/plugin.hpp"

namespace attn {

namespace {

int usage(const std::string& reason) { return fail(exit_usage, "attn_sweep", reason); }

int not_written(const std::string& reason, const std::string& go_on) { return attn::not_written("attn_sweep", reason, go_on); }

// What will disturb this sweep, before it begins.
void warn(const SweepOptions& o, const std::vector<Block>& blocks) {
  if (o.quiet) return;
  if (const std::string busy = busy_before(read_machine_state(o.machine_root)); !busy.empty())
    tell(stderr, "attn_sweep: " + busy + " (--doctor)\n");
  const Limits limits = read_limits(o.machine_root);
  std::set<std::string> crowded;
  for (const Block& block : blocks) crowded.insert(limits.crowded(block.cells.front().threads * block.cells.front().ranks));
  for (const std::string& why : crowded) {
    if (!why.empty()) tell(stderr, "attn_sweep: " + why + ": their times are those of fewer (--doctor)\n");
  }
}

int exit_code(const std::vector<Row>& rows) {
  if (interrupted) return exit_interrupted;
  const auto any = [&](Outcome o) {
    return std::any_of(rows.begin(), rows.end(), [o](const Row& row) { return row.measurement.outcome == o; });
  };
  if (any(Outcome::inaccurate) || any(Outcome::crashed)) return exit_failed_cell;
  return any(Outcome::ok) || rows.empty() ? exit_ok : exit_nothing_measured;
}

// The table, and how many rows there are where; an exit code.
int conclude(const SweepOptions& o, const Outputs& outputs, const std::string& go_on) {
  const std::vector<Row>& rows = outputs.rows();
  const std::size_t held = outputs.rows_from_before();
  std::string text;
  if (!o.quiet)
    text += table(rows, o.baseline, o.table == "md" ? TableStyle::markdown : TableStyle::terminal, terminal_columns(STDOUT_FILENO));
  if (held > 0) text += fmt::format("{} new, {} from before\n", rows.size() - held, held);
  text += fmt::format("{} rows in {}\n", rows.size(), o.out);
  const int printed = print_and_exit(text);
  if (printed != exit_ok) tell(stderr, fmt::format("attn_sweep: stdout takes no table; all rows are in {}\n", o.out));
  if (interrupted) tell_of_interruption("attn_sweep", go_on);
  const int code = exit_code(rows);
  return code == exit_ok ? printed : code;
}

int dry_run(const std::vector<Block>& blocks, const SweepOptions& o, const Registry& registry) {
  const auto text = foreseen_text(blocks, o, registry);
  return text ? print_and_exit(*text) : usage(text.reason());
}

int list(const SweepOptions& o, const Registry& registry) {
  if (o.list == "shapes") return print_and_exit(shapes_text());
  if (o.list == "md") return print_and_exit(list_markdown(registry));
  if (o.list == "json") return print_and_exit(list_json(registry));
  if (o.list == "ids") return print_and_exit(list_ids(registry));
  const std::size_t columns = terminal_columns(STDOUT_FILENO);
  if (o.list == "text") {
    const auto needs = needs_of_all_text(o, registry);
    return needs ? print_and_exit(list_text(registry, columns) + fitted(*needs, columns)) : usage(needs.reason());
  }
  const auto whole = list_whole(o.list, registry, columns);
  return whole ? print_and_exit(*whole) : usage("--list: " + whole.reason());
}

int plan(const SweepOptions& o, const std::vector<Block>& blocks, const Registry& registry) {
  const std::string text = plan_text(blocks, o, registry);
  if (Status status = write_whole(o.plan, [&](std::ostream& file) { file << text; }); !status)
    return fail(exit_not_written, "attn_sweep", "--plan: " + status.reason());
  return print_and_exit(counted(blocks.size(), "block") + " in " + o.plan + "\n");
}

// What the file was begun with, where --resume is given; an exit code.
std::optional<int> begin_as_before(SweepOptions& o, const Registry& registry) {
  if (!o.resume || o.out.empty()) return {};
  std::string note;
  if (Status same = go_on_as_begun(o, registry, note); !same) return usage(same.reason());
  if (!note.empty()) tell(stderr, "attn_sweep: " + note + "\n");
  return {};
}

int measure(const SweepOptions& o, const Registry& registry, std::vector<Block>& blocks, const Begun& begun,
            index_t memory_limit_bytes, const std::vector<std::string>& command_line) {
  auto known = o.peaks.empty() ? Result<std::vector<Peak>>(std::vector<Peak>()) : peaks_of(o.peaks);
  if (!known) return usage("--peaks: " + known.reason());
  auto outputs = Outputs::open(o);
  if (!outputs) return usage(outputs.reason());
  const std::string go_on = resume_command(command_line.front(), o.out);

  catch_interrupts();
  warn(o, blocks);
  if (!o.quiet) tell(stderr, "attn_sweep: the machine's peaks, then " + foreseen_time(blocks, o, registry) + "\n");
  const Schedule schedule(o);
  Worker worker(o, memory_limit_bytes);
  if (Status status = worker.measure_peaks(blocks, *known); !status) return usage(status.reason());
  if (interrupted) {
    tell(stderr, "attn_sweep: interrupted before the first cell; this begins again: " + shell_quoted(command_line) + "\n");
    return exit_interrupted;
  }
  if (Status status = outputs->begin(); !status) return not_written(status.reason(), go_on);
  const std::string context = context_json(command_line, worker.peaks(), row_schema(), to_json(begun));
  if (Status status = write_file(context_path(o.out), context); !status) return not_written(status.reason(), go_on);
  Measuring measuring(o, registry, schedule, worker, *outputs);
  if (Status status = measuring.run(blocks); !status) return not_written(status.reason(), go_on);
  if (!interrupted) outputs->end();
  return conclude(o, *outputs, go_on);
}

int run(SweepOptions o, const Registry& registry, const std::vector<std::string>& command_line) {
  o.rounds = std::min(o.rounds, o.samples);
  if (const auto code = begin_as_before(o, registry)) return *code;
  std::vector<std::string> notes;
  auto blocks = make_grid(o, registry, &notes);
  if (!blocks) return usage(blocks.reason());
  for (const std::string& note : notes) tell(stderr, "attn_sweep: " + note + "\n");
  std::vector<std::string> named = o.axes["variant"];
  named.push_back(o.against);
  tell_of_renamed(registry, named, "attn_sweep");
  if (o.dry_run) return dry_run(*blocks, o, registry);
  if (!o.scaling.empty()) {
    const auto text = scaling_text(*blocks, o, registry);
    return text ? print_and_exit(*text) : usage(text.reason());
  }
  if (!o.plan.empty()) return plan(o, *blocks, registry);
  const Begun begun = begun_with(o, registry);
  if (!o.against.empty()) o.against = (*registry.configure(o.against))->name().text();
  const auto memory_limit_bytes = read_memory_limit(o.memory_limit);
  if (!memory_limit_bytes) return usage(memory_limit_bytes.reason());
  if (o.out.empty()) {
    auto made = make_new_file("results/sweep-" + utc_stamp(), ".csv");
    if (!made) return fail(exit_not_written, "attn_sweep", made.reason());
    o.out = *std::move(made);
  }
  return measure(o, registry, *blocks, begun, *memory_limit_bytes, command_line);
}

// Asks what the user's guests compute; orphans that guests leave behind come to this process from here on.
Status invite_guests(SweepOptions& o, Registry& registry) {
  for (const std::string& command : o.guests) {
    const auto spec = greet_guest(command, o.timeout_s);
    if (!spec) return spec.refusal();
    o.guest_specs.push_back(spec->text);
  }
  adopt_orphans();
  remove_abandoned_guest_folders();
  if (Status status = register_guests(o.guest_specs, registry); !status) return status;
  register_rank_schemes(registry);
  return {};
}

int explain(const SweepOptions& o, const Registry& registry) {
  const auto variants = registry.configure_list(o.explain);
  if (!variants) return usage("--explain: " + variants.reason());
  if (o.format == "md") return print_and_exit(explain_markdown(*variants, registry));
  if (o.format == "json") return print_and_exit(explain_json(*variants, registry));
  return print_and_exit(explain_text(*variants, registry));
}

}  // namespace

int sweep_main(int argc, char** argv, const std::vector<WorkerKind>& kinds, const VerifyProgram& verify) {
  open_standard_streams();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (is_worker(arguments)) return worker_main(arguments, kinds);

  const CommandLine line = parse_command_line(arguments);
  if (line.then == CommandLine::Then::exit) {
    if (line.exit_code == 0) return print_and_exit(line.text);
    tell(stderr, line.text);
    return line.exit_code;
  }
  SweepOptions o = line.options;
  Registry registry;
  register_builtin_variants(registry);
  if (Status status = load_plugins(o.plugins, registry, prefer_from(o.prefer)); !status) return usage(status.reason());
  if (Status status = invite_guests(o, registry); !status) return usage(status.reason());
  if (o.version) return print_and_exit(program_version());
  if (o.columns) return print_and_exit(columns_text());
  if (!o.list.empty()) return list(o, registry);
  if (!o.explain.empty()) return explain(o, registry);
  if (o.doctor) return print_and_exit(advice_text(examine(o.machine_root)));
  if (o.verify) return verify(o, registry);
  return run(o, registry, {argv, argv + argc});
}

}  // namespace attn
