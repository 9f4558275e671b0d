#include "attn/sweep/sweep.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "attn/core/rng.hpp"
#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/kernels/dense/onednn.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/measure/doctor.hpp"
#include "attn/measure/machine_state.hpp"
#include "attn/program/exit.hpp"
#include "attn/program/flags.hpp"
#include "attn/program/interrupt.hpp"
#include "attn/program/process.hpp"
#include "attn/program/progress.hpp"
#include "attn/program/worker_end.hpp"
#include "attn/record/context.hpp"
#include "attn/record/journal.hpp"
#include "attn/record/sink.hpp"
#include "attn/record/table.hpp"
#include "attn/sweep/grid.hpp"
#include "attn/sweep/iso_error.hpp"
#include "attn/sweep/listing.hpp"
#include "attn/variant/plugin.hpp"

namespace attn {

namespace {

int usage(const std::string& reason) { return fail(exit_usage, "attn_sweep", reason); }

int not_written(const std::string& reason) {
  return fail(exit_not_written, "attn_sweep", reason + "; finished rows are kept, --resume goes on");
}

void tell_of_interruption() { tell(stderr, "attn_sweep: interrupted; finished rows are kept, --resume goes on\n"); }

struct Sweep {
  SweepOptions options;
  Registry registry;
  std::vector<std::string> command_line;
  index_t memory_limit_bytes = 0;
  std::map<std::pair<std::string, int>, Peak> peaks;  // by ISA and threads

  std::optional<AppendFile> csv, journal, jsonl;
  std::map<std::string, std::vector<Measurement>> earlier_rounds;  // from the journal of an interrupted sweep
  std::vector<Row> rows;                                           // those of the CSV that --resume goes on with first
  std::size_t kept_bytes = 0;                                      // of the CSV, up to what is torn
  bool drops_rows = false;                                         // that the budget skipped: they are measured
  std::vector<std::string> finished;                               // keys that the CSV holds already
  std::map<std::string, std::string> out_of_reach;                 // cells without a budget for --iso-error, and why

  ProcessEnd ask(const std::string& kind, const nlohmann::json& question, double timeout_s, index_t limit_bytes) const {
    return run_worker(worker_arguments(kind, options.plugins), question.dump(), timeout_s, limit_bytes, &interrupted);
  }
};

Measurement failure(Outcome outcome, std::string reason) {
  Measurement m;
  m.outcome = outcome;
  m.reason = std::move(reason);
  return m;
}

Measurement measure_in_worker(const Sweep& sweep, const Cell& cell, const Settings& settings) {
  nlohmann::json question = nlohmann::json::parse(to_json(cell, settings));
  question["started_s"] = monotonic_s();
  const ProcessEnd end = sweep.ask("cell", question, sweep.options.timeout_s, sweep.memory_limit_bytes);
  if (end.how == ProcessEnd::How::answered) {
    try {
      return measurement_from_json(end.answer);
    } catch (const std::exception&) {  // torn
    }
  }
  const auto [outcome, reason] = no_answer(end, sweep.options.timeout_s);
  return failure(outcome, reason);
}

// Measures again, once, what was disturbed; the second attempt stands.
Measurement measure_in_quiet(const Sweep& sweep, const Cell& cell, const Settings& settings) {
  const auto watched = [&] {
    const MachineState before = read_machine_state(sweep.options.machine_root);
    Measurement m = measure_in_worker(sweep, cell, settings);
    if (m.outcome != Outcome::ok || m.samples_s.empty()) return m;
    m.disturbed = disturbance(before, read_machine_state(sweep.options.machine_root));
    const auto peak = sweep.peaks.find({cell.isa, cell.threads});
    if (m.disturbed.empty() && peak != sweep.peaks.end())
      m.disturbed = clock_disturbance(m.fma_gflops, peak->second.fma_gflops_median);
    return m;
  };
  Measurement m = watched();
  if (!m.disturbed.empty() && !interrupted) {
    Measurement again = watched();
    again.remeasured = again.outcome == Outcome::ok ? 1 : 0;
    m = std::move(again);
  }
  // No second attempt would help against these.
  const std::string crowded = m.outcome == Outcome::ok ? read_limits(sweep.options.machine_root).crowded(cell.threads) : "";
  if (!crowded.empty()) m.disturbed += (m.disturbed.empty() ? "" : "; ") + crowded;
  return m;
}

Status measure_peaks(Sweep& sweep, const std::vector<Block>& blocks) {
  for (const Block& block : blocks) {
    const Cell& cell = block.cells.front();
    const auto key = std::pair(cell.isa, cell.threads);
    if (sweep.peaks.contains(key) || interrupted) continue;
    const nlohmann::json question = {{"isa", cell.isa}, {"threads", cell.threads}, {"pin", sweep.options.pin}};
    const ProcessEnd end = sweep.ask("peak", question, 120, 0);
    if (end.how == ProcessEnd::How::stopped) return {};
    if (end.how == ProcessEnd::How::timed_out) return refuse("measuring the machine's peaks took more than 120 s: it is busy");
    if (end.how != ProcessEnd::How::answered)
      return refuse("measuring the machine's peaks failed" + (end.last_words.empty() ? "" : ": " + end.last_words));
    sweep.peaks[key] = peak_from_json(end.answer);
  }
  return {};
}

// All rounds of a cell as one measurement: facts of the first, samples of all.
Measurement merged(const std::vector<Measurement>& rounds) {
  Measurement whole = rounds.front();
  double fma = 0, share = 0;
  for (std::size_t r = 0; r < rounds.size(); ++r) {
    const Measurement& round = rounds[r];
    if (round.outcome != Outcome::ok) {
      whole.outcome = round.outcome;
      whole.reason = round.reason;
    }
    if (r > 0) {
      whole.samples_s.insert(whole.samples_s.end(), round.samples_s.begin(), round.samples_s.end());
      whole.against_s.insert(whole.against_s.end(), round.against_s.begin(), round.against_s.end());
      whole.remeasured += round.remeasured;
    }
    if (whole.disturbed.empty()) whole.disturbed = round.disturbed;
    whole.setup_s = std::min(whole.setup_s, round.setup_s);
    fma += round.fma_gflops / static_cast<double>(rounds.size());
    share += round.mixer_share / static_cast<double>(rounds.size());
  }
  whole.mixer_share = share;
  whole.fma_gflops = fma;
  return whole;
}

Row make_row(const Sweep& sweep, const Cell& cell, Measurement measurement) {
  const auto peak = sweep.peaks.find({cell.isa, cell.threads});
  Row row = make_row(cell, std::move(measurement), peak == sweep.peaks.end() ? Peak{} : peak->second);
  const VariantType* type = sweep.registry.find(row.id);
  row.family = type->family;
  row.exactness = to_string(type->info.exactness);
  row.started = utc_now();
  row.commit = source_commit();
  row.command = repeat_command(cell, sweep.options);
  return row;
}

std::string outcome_text(const Measurement& m) {
  if (m.outcome != Outcome::ok) return std::string(to_string(m.outcome)) + (m.reason.empty() ? "" : " (" + m.reason + ")");
  return m.samples_s.empty() ? "ok" : human_time(*std::min_element(m.samples_s.begin(), m.samples_s.end()));
}

Status finish_cell(Sweep& sweep, const Cell& cell, const std::vector<Measurement>& rounds) {
  Row row = make_row(sweep, cell, merged(rounds));
  if (Status status = sweep.csv->append(row_schema().line(row)); !status) return status;
  if (sweep.jsonl) {
    if (Status status = sweep.jsonl->append(row_schema().json_line(row)); !status) return status;
  }
  sweep.rows.push_back(std::move(row));
  return {};
}

// A name that no other cell has, in --save-output's folder.
std::string output_file(const Sweep& sweep, const Cell& cell) {
  if (sweep.options.save_output.empty()) return "";
  const std::string name =
      fmt::format("{}-{:016x}.npy", VariantName::parse(cell.variant).value().label(), hash_name(cell_key(cell)));
  return (std::filesystem::path(sweep.options.save_output) / name).string();
}

bool too_late(const Sweep& sweep, double begin_s) {
  return sweep.options.budget_s > 0 && monotonic_s() - begin_s > sweep.options.budget_s;
}

// Gives every variant of a block its smallest budget for --iso-error. Those that cannot reach it stay as they are and are
// noted as out of reach.
void fit_budgets(Sweep& sweep, Block& block, double begin_s) {
  Settings settings;
  settings.gate = settings.clock = false;
  settings.fidelity_seeds = static_cast<int>(sweep.options.fidelity_seeds);
  settings.pin = sweep.options.pin;
  for (Cell& cell : block.cells) {
    if (too_late(sweep, begin_s)) return;  // these cells will be skipped
    const auto error_of = [&](const std::string& variant) -> Result<double> {
      Cell probe = cell;
      probe.variant = variant;
      probe.scope = Scope::mixer;  // a layer has no error of its own
      const Measurement m = measure_in_worker(sweep, probe, settings);
      if (m.fidelity.done) return m.fidelity.relative;
      return refuse(m.outcome == Outcome::ok ? m.fidelity.reason : m.reason);
    };
    const auto budget = budget_of(*sweep.registry.find(VariantName::parse(cell.variant).value().id));
    std::string why;
    if (budget) {
      // A budget of all keys costs what full attention costs.
      const index_t most = std::min(budget->high, cell.problem.kv_len);
      const auto found = smallest_budget(budget->low, most, sweep.options.iso_error,
                                         [&](index_t value) { return error_of(with_budget(cell.variant, *budget, value)); });
      if (found) cell.variant = with_budget(cell.variant, *budget, found->value);
      if (!found) why = found.reason();
    } else if (const auto error = error_of(cell.variant); !error) {
      why = error.reason();
    } else if (*error > sweep.options.iso_error) {
      why = fmt::format("has no budget to raise and an error of {:.3g}, more than {}", *error,
                        format_number(sweep.options.iso_error));
    }
    if (interrupted) return;
    if (!why.empty()) sweep.out_of_reach[cell_key(cell)] = why;
    if (!sweep.options.quiet)
      tell(stderr,
           fmt::format("iso-error {}: {}{}\n", format_number(sweep.options.iso_error), title(cell), why.empty() ? "" : ": " + why));
  }
}

// A block in rounds, each in its own shuffled order. A cell that fails in one round has no further ones.
Status measure_block(Sweep& sweep, const Block& block, std::size_t block_number, double begin_s, Progress& progress) {
  const auto rounds = static_cast<std::size_t>(sweep.options.rounds);
  std::map<std::string, std::vector<Measurement>> measured;
  for (std::size_t round = 0; round < rounds; ++round) {
    std::vector<const Cell*> order;
    for (const Cell& cell : block.cells) order.push_back(&cell);
    const Rng rng(hash_name(sweep.options.order_seed), block_number * 1000 + round);
    for (std::size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[static_cast<std::size_t>(rng.below(static_cast<index_t>(i), static_cast<index_t>(i)))]);
    }
    for (const Cell* cell : order) {
      const std::string key = cell_key(*cell);
      if (std::find(sweep.finished.begin(), sweep.finished.end(), key) != sweep.finished.end()) continue;
      auto& list = measured[key];
      if (list.size() > round || (!list.empty() && list.back().outcome != Outcome::ok)) continue;
      if (const auto earlier = sweep.earlier_rounds.find(key); list.empty() && earlier != sweep.earlier_rounds.end()) {
        list = earlier->second;
        sweep.earlier_rounds.erase(earlier);
      }
      if (list.size() <= round && (list.empty() || list.back().outcome == Outcome::ok)) {
        Settings settings;
        settings.samples = static_cast<int>(sweep.options.samples / sweep.options.rounds +
                                            (static_cast<index_t>(round) < sweep.options.samples % sweep.options.rounds ? 1 : 0));
        settings.clock = settings.samples > 0;
        settings.sample_min_s = sweep.options.sample_time_s;
        settings.gate = round == 0;
        settings.fidelity = round == 0 ? comparison_from(sweep.options.fidelity) : Comparison::none;
        settings.fidelity_seeds = static_cast<int>(sweep.options.fidelity_seeds);
        settings.pin = sweep.options.pin;
        settings.against = sweep.options.against;
        if (round == 0) settings.output_file = output_file(sweep, *cell);
        const bool late = too_late(sweep, begin_s);
        const auto unreached = sweep.out_of_reach.find(key);
        Measurement m = unreached != sweep.out_of_reach.end() ? failure(Outcome::unsupported, unreached->second)
                        : late                                ? failure(Outcome::skipped_budget,
                                                                        fmt::format("--budget {} s was used up", format_number(sweep.options.budget_s)))
                                                              : measure_in_quiet(sweep, *cell, settings);
        if (interrupted) return {};
        // A cell with rounds behind it has a row to show: the budget only keeps it from more samples.
        if (late && !list.empty()) m = Measurement{list.back()}, m.samples_s.clear(), m.against_s.clear();
        if (Status status = sweep.journal->append(journal_line({key, m})); !status) return status;
        progress.end(title(*cell), 1, outcome_text(m));
        list.push_back(std::move(m));
      }
      if (list.size() == rounds || list.back().outcome != Outcome::ok) {
        if (Status status = finish_cell(sweep, *cell, list); !status) return status;
        sweep.finished.push_back(key);
      }
    }
  }
  return {};
}

// Whether a file is empty or begins, as far as it goes, as json_line does.
bool begins_as_ours(std::string_view text) {
  const std::string begin = fmt::format(R"({{"schema":{},"variant":)", csv_schema);
  return text.substr(0, begin.size()) == std::string_view(begin).substr(0, text.size());
}

// Holds every output and reads what --resume goes on with. No file that holds something is changed.
Status open_outputs(Sweep& sweep) {
  const SweepOptions& o = sweep.options;
  const auto mode = o.resume || o.force ? AppendFile::Mode::hold : AppendFile::Mode::create;
  if (!o.jsonl.empty()) {
    const auto place = [](const std::string& path) {
      std::error_code ignored;  // opening says what is wrong
      return std::filesystem::weakly_canonical(std::filesystem::absolute(path, ignored), ignored);
    };
    if (place(o.out) == place(o.jsonl)) return refuse("--out and --jsonl both name '" + o.jsonl + "', two files are accepted");
    auto jsonl = AppendFile::open(o.jsonl, mode);
    if (!jsonl) return refuse("--jsonl: " + jsonl.reason());
    sweep.jsonl = *std::move(jsonl);
    if (o.resume) {
      const auto text = read_file(o.jsonl);
      if (!text) return refuse("--jsonl: " + text.reason());
      if (!begins_as_ours(*text))
        return refuse("--jsonl: '" + o.jsonl + "' holds no rows of a sweep, --resume does not replace it");
    }
  }
  if (!o.save_output.empty()) {
    std::error_code failed;
    std::filesystem::create_directories(o.save_output, failed);
    if (failed) return refuse("--save-output: making '" + o.save_output + "' failed: " + failed.message());
  }
  auto csv = AppendFile::open(o.out, mode);
  if (!csv) return refuse("--out: " + csv.reason());
  sweep.csv = *std::move(csv);
  if (o.resume) {
    const auto old = read_rows(o.out, row_schema());
    if (!old) return refuse("--resume: " + old.reason());
    for (const Row& row : old->rows) {
      if (row.measurement.outcome == Outcome::skipped_budget) {
        sweep.drops_rows = true;
      } else {
        sweep.finished.push_back(cell_key(row.cell));
        sweep.rows.push_back(row);
      }
    }
    sweep.kept_bytes = old->whole_bytes;
  }
  auto journal = AppendFile::open(o.out + ".journal", AppendFile::Mode::hold);
  if (!journal) return journal.refusal();
  sweep.journal = *std::move(journal);
  if (o.resume) {
    if (const auto text = read_file(sweep.journal->path())) {
      for (auto& [key, round] : read_journal(*text)) {
        if (round.outcome != Outcome::skipped_budget) sweep.earlier_rounds[key].push_back(std::move(round));
      }
    }
  }
  return {};
}

// From here on the files are this sweep's.
Status begin_outputs(Sweep& sweep) {
  std::string lines;
  for (const auto& [key, rounds] : sweep.earlier_rounds) {
    for (const auto& m : rounds) lines += journal_line({key, m});
  }
  if (Status status = sweep.journal->rewrite(lines); !status) return status;
  if (sweep.drops_rows) {
    std::string text = row_schema().header();
    for (const Row& row : sweep.rows) text += row_schema().line(row);
    if (Status status = sweep.csv->rewrite(text); !status) return status;
  } else {
    if (Status status = sweep.csv->cut(sweep.kept_bytes); !status) return status;
    if (sweep.kept_bytes == 0) {
      if (Status status = sweep.csv->append(row_schema().header()); !status) return status;
    }
  }
  if (!sweep.jsonl) return {};
  // The rows of the CSV once more: the file may lack the last ones, or be another sweep's.
  if (Status status = sweep.jsonl->cut(0); !status) return status;
  lines.clear();
  for (const Row& row : sweep.rows) lines += row_schema().json_line(row);
  return sweep.jsonl->append(lines);
}

int exit_code(const Sweep& sweep) {
  if (interrupted) return exit_interrupted;
  const auto any = [&](Outcome o) {
    return std::any_of(sweep.rows.begin(), sweep.rows.end(), [o](const Row& row) { return row.measurement.outcome == o; });
  };
  if (any(Outcome::inaccurate) || any(Outcome::crashed)) return exit_failed_cell;
  return any(Outcome::ok) || sweep.rows.empty() ? exit_ok : exit_nothing_measured;
}

int dry_run(const std::vector<Block>& blocks) {
  std::size_t cells = 0;
  std::string text;
  for (const Block& block : blocks) {
    text += heading(block.cells.front()) + "\n";
    for (const Cell& cell : block.cells) text += "  " + cell.variant + "\n";
    cells += block.cells.size();
  }
  return print_and_exit(text + fmt::format("{} cells\n", cells));
}

int run(Sweep& sweep) {
  SweepOptions& o = sweep.options;
  if (o.samples < o.rounds) o.rounds = o.samples;
  auto blocks = make_grid(o, sweep.registry);
  if (!blocks) return usage(blocks.reason());
  std::vector<std::string> named = o.axes["variant"];
  named.push_back(o.against);
  if (const std::string note = sweep.registry.renamed(join(named, ",")); !note.empty()) tell(stderr, "attn_sweep: " + note + "\n");
  if (o.dry_run) return dry_run(*blocks);
  if (!o.against.empty()) o.against = (*sweep.registry.configure(o.against))->name().text();

  const auto memory_limit_bytes = read_memory_limit(o.memory_limit);
  if (!memory_limit_bytes) return usage(memory_limit_bytes.reason());
  sweep.memory_limit_bytes = *memory_limit_bytes;
  if (o.out.empty()) o.out = "results/sweep-" + utc_stamp() + ".csv";
  if (Status status = open_outputs(sweep); !status) return usage(status.reason());
  const std::size_t held = sweep.rows.size();

  catch_interrupts();

  if (const std::string busy = busy_before(read_machine_state(o.machine_root)); !busy.empty() && !o.quiet)
    tell(stderr, "attn_sweep: " + busy + " (--doctor)\n");
  if (!o.quiet) {
    const Limits limits = read_limits(o.machine_root);
    std::set<std::string> crowded;
    for (const Block& block : *blocks) crowded.insert(limits.crowded(block.cells.front().threads));
    for (const std::string& why : crowded) {
      if (!why.empty()) tell(stderr, "attn_sweep: " + why + ": their times are those of fewer (--doctor)\n");
    }
  }
  const double begin_s = monotonic_s();
  std::size_t steps = 0;
  for (const Block& block : *blocks) steps += block.cells.size() * static_cast<std::size_t>(o.rounds);
  if (Status status = measure_peaks(sweep, *blocks); !status) return usage(status.reason());
  if (interrupted) {
    tell_of_interruption();
    return exit_interrupted;
  }
  if (Status status = begin_outputs(sweep); !status) return not_written(status.reason());
  std::vector<Peak> peaks;
  for (const auto& [key, peak] : sweep.peaks) peaks.push_back(peak);
  if (Status status = write_file(context_path(o.out), context_json(sweep.command_line, peaks, row_schema())); !status)
    return not_written(status.reason());

  if (o.iso_error > 0) {
    for (Block& block : *blocks) {
      if (!interrupted) fit_budgets(sweep, block, begin_s);
    }
  }
  {
    Progress progress(steps, static_cast<double>(steps), o.quiet);
    for (std::size_t b = 0; b < blocks->size() && !interrupted; ++b) {
      if (Status status = measure_block(sweep, (*blocks)[b], b, begin_s, progress); !status) {
        progress.clear();
        return not_written(status.reason());
      }
    }
  }
  if (!interrupted) ::unlink(sweep.journal->path().c_str());
  std::string text;
  if (!o.quiet) text += table(sweep.rows, o.baseline, o.table == "md" ? TableStyle::markdown : TableStyle::terminal);
  if (held > 0) text += fmt::format("{} new, {} from before\n", sweep.rows.size() - held, held);
  text += fmt::format("{} rows in {}\n", sweep.rows.size(), o.out);
  const int printed = print_and_exit(text);
  if (printed != exit_ok) tell(stderr, fmt::format("attn_sweep: stdout takes no table; all rows are in {}\n", o.out));
  if (interrupted) tell_of_interruption();
  const int code = exit_code(sweep);
  return code == exit_ok ? printed : code;
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
  Sweep sweep;
  sweep.options = line.options;
  sweep.command_line.assign(argv, argv + argc);
  register_builtin_variants(sweep.registry);
  if (Status status = load_plugins(sweep.options.plugins, sweep.registry); !status) return usage(status.reason());
  const SweepOptions& o = sweep.options;
  if (o.version) return print_and_exit(fmt::format("{} commit {}\n{}\n", build_tag(), source_commit(), kernels::onednn_version()));
  if (o.columns) return print_and_exit(columns_text());
  if (o.list == "text") return print_and_exit(list_text(sweep.registry));
  if (o.list == "md") return print_and_exit(list_markdown(sweep.registry));
  if (o.list == "json") return print_and_exit(list_json(sweep.registry));
  if (o.doctor) return print_and_exit(advice_text(examine(o.machine_root)));
  if (o.verify) return verify(o, sweep.registry);
  return run(sweep);
}

}  // namespace attn
