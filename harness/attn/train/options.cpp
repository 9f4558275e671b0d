#include "attn/train/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "attn/program/flags.hpp"
#include "attn/record/context.hpp"
#include "attn/record/sink.hpp"

namespace attn {

namespace {

constexpr const char* examples =
    R"(Examples
  attn_train --task mqar:kv=8 --n 64 --variants full,linear,local
  attn_train --task listops --n 512 --variants full,linear --seed 1..3
  attn_train --list                   tasks and their options

Exit codes
  0 fine; 1 some run diverged or crashed; 2 usage; 5 nothing trained;
  6 an output could not be written; 130 interrupted, finished runs kept)";

void declare(CLI::App& app, TrainOptions& o) {
  const auto last = CLI::MultiOptionPolicy::TakeLast;
  const auto text = [&](const char* name, std::string& value, const char* doc, const char* group) {
    add_text(app, name, value, doc, group);
  };
  const char* axes = "Axes (lists 1,2,4 and ranges 64..1024*2)";
  add_texts(app, "task", o.tasks,
            "what to learn, with options: mqar:kv=8, listops, ... (default: mqar); may be given several times", axes);
  text("variants", o.variants, "variants with options, families, ids with * and ?, or 'all'; full is added as the control", axes);
  text("n", o.n, "sequence lengths", axes);
  text("seed", o.seed, "seeds of weights and samples", axes);
  text("rate", o.rate, "learning rates: table (one for each task), sweep (that, a third and three times as much), or a list", axes);
  text("samples", o.samples, "training samples, drawn again and again; 0: each is new", axes);
  add_texts(app, "plugin", o.plugins, "shared library with a variant; may be given several times", axes);
  add_prefer(app, o.prefer, axes);

  const char* model = "Model and training (default: what the task's recipe says)";
  text("body", o.body, "layers: of the variant; recurrent: gated recurrent units that it joins, where a sequence is answered",
       model);
  text("beam", o.beam, "hypotheses in the test, where a sequence is answered; 1: greedy", model);
  text("width", o.width, "of the model", model);
  text("heads", o.heads, "of each mixer", model);
  text("layers", o.layers, "of the model", model);
  text("mlp", o.mlp, "hidden units of a layer's MLP; 0: none", model);
  text("conv", o.conv, "taps of a short convolution before each mixer; 0: none", model);
  text("positions", o.positions, "none, sinusoidal, learned, rotary or alibi", model);
  add_yes_or_text(
      app, "causal", [&o](const std::string& given) { o.causal = given; }, "no or yes; alone: yes", model);
  text("batch", o.batch, "sequences a step", model);
  text("steps", o.steps, "steps at most; a solved task ends early", model);
  app.add_option("--test-samples", o.test_samples, "sequences of the test")
      ->multi_option_policy(last)
      ->group(model)
      ->check(CLI::Range(index_t{1}, index_t{1'000'000}))
      ->capture_default_str();
  app.add_option("--extrapolate", o.extrapolate, "test on sequences so many times as long, too (1: none)")
      ->multi_option_policy(last)
      ->group(model)
      ->check(CLI::Range(index_t{1}, index_t{1024}))
      ->capture_default_str();
  text("state-bytes", o.state_bytes,
       "as many heads for each variant but the control as keep a layer's state nearest to, and not above, so many bytes", model);

  const char* running = "Running";
  app.add_option("--jobs", o.jobs, "runs at the same time, one thread each (0: all usable cores)")
      ->multi_option_policy(last)
      ->group(running)
      ->check(CLI::Range(index_t{0}, index_t{4096}))
      ->capture_default_str();
  accept_from_to(*app.add_option("--timeout", o.timeout_s, "seconds after which a run is killed")
                      ->multi_option_policy(last)
                      ->group(running)
                      ->capture_default_str(),
                 least_timeout_s, 1e7);
  text("memory-limit", o.memory_limit, "of a run, such as 8G (default: four fifths of what is available, shared by the jobs)",
       running);

  const char* output = "Output";
  text("out", o.out, "CSV file (default: results/DATE.train.csv)", output);
  add_switch(app, "--force", o.force, "replace the output file", output);
  add_switch(app, "--resume", o.resume, "go on with the output file, skipping the runs it holds", output);
  add_switch(app, "-q,--quiet", o.quiet, "no progress, no table", output);

  const char* instead = "Instead of training";
  add_switch(app, "--list", o.list, "tasks and their options", instead);
  add_switch(app, "--columns", o.columns, "the CSV's columns", instead);
  text("plan", o.plan, "write a line for each point and seed into this file, for scripts/cluster", instead);
  add_switch(app, "--dry-run", o.dry_run, "what would be trained", instead);
  add_switch(app, "--version", o.version, "version and commit", instead);
}

constexpr std::array asked_flags = {
    "task",  "variants", "n",   "seed", "rate",      "samples", "plugin", "prefer", "body",         "beam",        "width",
    "heads", "layers",   "mlp", "conv", "positions", "causal",  "batch",  "steps",  "test-samples", "extrapolate", "state-bytes"};

// As asked_json() wrote it, in flags; none where the CSV holds nothing or its context does not tell.
std::vector<std::string> asked_before(const std::string& csv) {
  std::error_code none;
  const auto bytes = std::filesystem::file_size(csv, none);
  const auto text = read_file(context_path(csv));
  if (none || bytes == 0 || !text) return {};
  try {
    return nlohmann::json::parse(*text).at("asked").at("arguments").get<std::vector<std::string>>();
  } catch (const std::exception&) {  // of a release that did not tell, or torn
    return {};
  }
}

TrainCommandLine refused(const std::string& reason) { return {true, 2, "attn_train: " + reason + "\n", {}}; }

// `asks`: whether flags say what to train.
TrainCommandLine parse(const std::vector<std::string>& arguments, const std::vector<std::string>& beneath, bool& asks) {
  TrainCommandLine line;
  CLI::App app("Trains small models that differ in the attention variant alone, and writes how well they do.", "attn_train");
  app.footer(examples);
  declare(app, line.options);
  const FlagsEnd end = read_flags(app, arguments, {"task", "plugin"}, beneath);
  line.exit = end.exit;
  line.exit_code = end.exit_code;
  line.text = end.text;
  asks = std::any_of(asked_flags.begin(), asked_flags.end(),
                     [&](const char* flag) { return app.get_option(std::string("--") + flag)->count() > 0; });
  if (!end.exit && line.options.resume && line.options.force) return refused("--resume and --force exclude each other");
  return line;
}

}  // namespace

std::string asked_json(const TrainOptions& o) {
  std::vector<std::string> arguments;
  const auto add = [&](const char* flag, const std::string& value) {
    if (!value.empty()) arguments.push_back(std::string("--") + flag + "=" + value);
  };
  for (const std::string& task : o.tasks) add("task", task);
  for (const std::string& plugin : o.plugins) add("plugin", plugin);
  const std::pair<const char*, const std::string*> texts[] = {{"variants", &o.variants}, {"n", &o.n},
                                                              {"seed", &o.seed},         {"rate", &o.rate},
                                                              {"samples", &o.samples},   {"prefer", &o.prefer},
                                                              {"body", &o.body},         {"beam", &o.beam},
                                                              {"width", &o.width},       {"heads", &o.heads},
                                                              {"layers", &o.layers},     {"mlp", &o.mlp},
                                                              {"conv", &o.conv},         {"positions", &o.positions},
                                                              {"causal", &o.causal},     {"batch", &o.batch},
                                                              {"steps", &o.steps},       {"state-bytes", &o.state_bytes}};
  for (const auto& [flag, value] : texts) add(flag, *value);
  add("test-samples", std::to_string(o.test_samples));
  add("extrapolate", std::to_string(o.extrapolate));
  return nlohmann::json{{"arguments", arguments}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

TrainCommandLine parse_train_command_line(const std::vector<std::string>& arguments) {
  bool asks = false;
  TrainCommandLine line = parse(arguments, {}, asks);
  const TrainOptions& o = line.options;
  if (!line.exit && o.resume && !asks && !o.out.empty()) {
    const auto before = asked_before(o.out);
    if (before.empty())
      return refused("--resume: neither '" + o.out + "' nor '" + context_path(o.out) +
                     "' says what to train; accepted: --task, --variants and so on, or no --resume");
    line = parse(arguments, before, asks);
  }
  if (line.options.tasks.empty()) line.options.tasks = {"mqar"};
  return line;
}

}  // namespace attn
