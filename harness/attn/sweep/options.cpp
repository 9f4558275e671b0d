#include "attn/sweep/options.hpp"

#include <CLI/CLI.hpp>

#include "attn/program/flags.hpp"

namespace attn {

namespace {

constexpr const char* examples =
    R"(Examples
  attn_sweep --variants full,local,linear --n 512..4096*2 --out results/a.csv
  attn_sweep --list local             what one variant is, and its options
  attn_sweep --variants full,linear --pass decode --n 4096 --kv-heads 2
  attn_sweep --input npy:q.npy,k.npy,v.npy --variants full,sparse
  attn_sweep --variants all --n 1024 --dry-run
  attn_sweep --verify --plugin ./my_window.so

Exit codes
  0 fine; 1 some cell inaccurate or crashed; 2 usage; 5 nothing measured;
  6 an output could not be written; 130 interrupted, finished rows kept)";

void declare(CLI::App& app, SweepOptions& o) {
  const auto last = CLI::MultiOptionPolicy::TakeLast;
  const auto text = [&](const char* name, std::string& value, const char* doc, const char* group) {
    add_text(app, name, value, doc, group);
  };
  const char* axis_group = "Axes (lists 1,2,4 and ranges 128..16384*2, 128..1024+128)";
  for (const Axis& axis : axes()) {
    auto& texts = o.axes[axis.name];
    if (axis.repeatable) {
      add_texts(app, axis.flag.c_str(), texts, axis.help.c_str(), axis_group);
    } else {
      const auto last_given = [&texts](const std::string& given) { texts = {given}; };
      if (axis.yes_alone) {
        add_yes_or_text(app, axis.flag, last_given, axis.help, axis_group);
        continue;
      }
      app.add_option_function<std::string>("--" + axis.flag, last_given, axis.help)
          ->multi_option_policy(last)
          ->group(axis_group)
          ->default_str(axis.usual);
    }
  }
  add_texts(app, "plugin", o.plugins, "shared library with a variant; may be given several times", axis_group);
  add_prefer(app, o.prefer, axis_group);
  add_texts(app, "guest", o.guests,
            "command of a program that computes variants (scripts/guests/README.md), such as 'python3 my_attention.py'; may be "
            "given several times",
            axis_group);

  const char* measuring = "Measuring";
  const auto whole = [&](const char* flag, index_t& value, index_t low, index_t high, const char* doc) {
    app.add_option(std::string("--") + flag, value, doc)
        ->multi_option_policy(last)
        ->group(measuring)
        ->check(CLI::Range(low, high))
        ->capture_default_str();
  };
  const auto seconds = [&](const char* flag, double& value, double least, const char* doc) {
    auto* option = app.add_option(std::string("--") + flag, value, doc)->multi_option_policy(last)->group(measuring);
    accept_from_to(*option->capture_default_str(), least, 1e7);
  };
  whole("samples", o.samples, 1, 10'000, "timed samples of a cell, over all rounds");
  whole("rounds", o.rounds, 1, 100, "rounds in shuffled order that the samples are spread over");
  auto* steady = app.add_option("--steady", o.steady_percent,
                                "more rounds for cells whose 95 % interval is wider than so many per cent of the median: three "
                                "times as many at most, and "
                                "a quarter more in all (0: none)")
                     ->multi_option_policy(last)
                     ->group(measuring);
  accept_from_to(*steady->capture_default_str(), 0, 100);
  seconds("sample-time", o.sample_time_s, 0, "least seconds of a sample: short runs are repeated (0: none is)");
  seconds("timeout", o.timeout_s, least_timeout_s, "seconds after which a cell's worker is killed");
  seconds("budget", o.budget_s, 0, "seconds after which no cell is started (0: none)");
  text("memory-limit", o.memory_limit, "of a worker, such as 8G (default: four fifths of what is available)", measuring);
  add_switch(app, "--pin,!--no-pin", o.pin, "bind threads to cores", measuring);
  text("launcher", o.launcher,
       "command that starts the ranks of a cell, before -np RANKS (default: Open MPI's mpirun, on this machine)", measuring);
  text("machine-root", o.machine_root, "where proc and sys are read, to see what disturbs a cell", measuring);
  text("peaks", o.peaks,
       "context (.context.json) of an earlier sweep on this machine, whose peaks stand: those that it lacks are measured, and no clock is "
       "held against them (default: all are measured)",
       measuring);
  text("order-seed", o.order_seed, "seed of the shuffled order", measuring);
  app.add_option("--fidelity", o.fidelity,
                 "against softmax attention: none, rows (sampled) or full (besides, the matrix of weights, up to N = 2048)")
      ->multi_option_policy(last)
      ->group(measuring)
      ->check(CLI::IsMember({"none", "rows", "full"}))
      ->capture_default_str();
  whole("fidelity-seeds", o.fidelity_seeds, 1, 1000, "seeds of random tables that fidelity is averaged over");
  accept_from_to(*app.add_option("--iso-error", o.iso_error,
                                 "race each variant with the smallest budget (see --list) whose fid_relative is at most this")
                      ->multi_option_policy(last)
                      ->group(measuring),
                 1e-6, 1e3);
  accept_from_to(
      *app.add_option("--iso-skill", o.iso_skill, "race each variant with the smallest budget whose fid_skill is at least this")
           ->multi_option_policy(last)
           ->group(measuring),
      -1e3, 1);

  text("against", o.against, "a variant, such as full, whose samples are taken in turn with those of every cell: paired ratios",
       measuring);

  const char* output = "Output";
  text("out", o.out, "CSV file (default: results/sweep-DATE.csv)", output);
  text("jsonl", o.jsonl, "the same rows as JSON lines", output);
  text("save-output", o.save_output, "folder for every cell's output, .npy", output);
  add_switch(app, "--force", o.force, "replace the output file", output);
  add_switch(app, "--resume", o.resume,
             "go on with the output file: the cells it holds stay, crashed and timed out too, but those that --budget skipped",
             output);
  add_switch(app, "-q,--quiet", o.quiet, "no progress, no table", output);
  text("baseline", o.baseline, "variant that the table's times are relative to", output);
  app.add_option("--table", o.table, "the table on stdout: text or md")
      ->multi_option_policy(last)
      ->check(CLI::IsMember({"text", "md"}))
      ->group(output)
      ->capture_default_str();

  const char* instead = "Instead of a sweep";
  app.add_option("--list", o.list,
                 "variants and inputs; or one variant whole: an id; md, json or ids; or shapes: the models of --shape")
      ->expected(0, 1)
      ->default_str("text")
      ->multi_option_policy(last)
      ->group(instead);
  app.add_option("--explain", o.explain,
                 "variants: what their formula leaves out, and every tensor that attn_apply --parameters writes")
      ->multi_option_policy(last)
      ->group(instead);
  add_switch(app, "--doctor", o.doctor, "what would make measurements better on this machine", instead);
  add_switch(app, "--verify", o.verify, "try every property that a variant must have on --variants (default: the plugins', or all)",
             instead);
  text("property", o.property, "of --verify: 'all' or ids", instead);
  app.add_option("--format", o.format, "of --verify and --explain: text, md or json")
      ->multi_option_policy(last)
      ->check(CLI::IsMember({"text", "md", "json"}))
      ->group(instead)
      ->capture_default_str();
  add_switch(app, "--columns", o.columns, "the CSV's columns", instead);
  text("plan", o.plan, "write a line for each block (all variants of one problem) into this file, for scripts/cluster", instead);
  text("scaling", o.scaling,
       "numbers of threads, such as 2,64,192: predict the time of --variants on each from their tasks on one thread (--format md, "
       "json), and "
       "measure it where this machine has so many",
       instead);
  accept_from_to(
      *app.add_option("--bandwidth", o.bandwidth_gbs,
                      "of --scaling: GB/s that all threads of the machine with so many share (0: each has as much as here)")
           ->multi_option_policy(last)
           ->group(instead)
           ->capture_default_str(),
      0, 1e6);
  add_switch(app, "--dry-run", o.dry_run, "what would be measured", instead);
  add_switch(app, "--version", o.version, "version, commit and libraries", instead);
}

}  // namespace

std::optional<std::string> SweepOptions::asked(std::string_view axis) const {
  const auto found = axes.find(axis);
  if (found == axes.end() || found->second.empty()) return {};
  return found->second.front();
}

namespace {

CommandLine parse(const std::vector<std::string>& given, const std::vector<std::string>& beneath) {
  CommandLine line;
  CLI::App app("Measures attention variants: speed, memory and accuracy against sequence length.", "attn_sweep");
  app.footer(examples);
  declare(app, line.options);
  std::vector<std::string> repeatable{"plugin", "guest"};
  for (const Axis& axis : axes()) {
    if (axis.repeatable) repeatable.push_back(axis.flag);
  }
  const FlagsEnd end = read_flags(app, given, repeatable, beneath);
  line.then = end.exit ? CommandLine::Then::exit : CommandLine::Then::run;
  line.exit_code = end.exit_code;
  line.text = end.text;
  if (end.exit) return line;
  const SweepOptions& o = line.options;
  const auto exclude = [&](const char* one, const char* other) {
    return CommandLine{
        CommandLine::Then::exit, 2, std::string("attn_sweep: ") + one + " and " + other + " exclude each other\n", {}};
  };
  if (o.resume && o.force) return exclude("--resume", "--force");
  if (o.iso_error > 0 && o.iso_skill) return exclude("--iso-error", "--iso-skill");
  if (app.get_option("--list")->count() > 0 && o.list.empty()) line.options.list = "text";
  return line;
}

}  // namespace

CommandLine parse_command_line(const std::vector<std::string>& given) {
  CommandLine line = parse(given, {});
  if (line.then == CommandLine::Then::exit || !line.options.resume || line.options.out.empty()) return line;
  auto begun = read_begun(line.options.out);
  if (!begun) return line;
  Asked said = std::move(line.options.axes);
  line = parse(given, begun->arguments());
  line.options.said = std::move(said);
  line.options.begun = std::move(begun);
  return line;
}

}  // namespace attn
