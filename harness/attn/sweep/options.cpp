#include "attn/sweep/options.hpp"

#include <toml++/toml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "attn/core/text.hpp"
#include "attn/report/sink.hpp"

namespace attn {

namespace {

std::string variable_name(const std::string& flag) {
  std::string name = "ATTN_";
  for (const char c : flag) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

void declare(CLI::App& app, SweepOptions& o) {
  const auto last = CLI::MultiOptionPolicy::TakeLast;
  const auto text = [&](const char* flag, std::string& value, const char* doc, const char* group) {
    app.add_option(std::string("--") + flag, value, doc)->multi_option_policy(last)->group(group)->capture_default_str();
  };
  const char* axes = "Axes (lists 1,2,4 and ranges 128..16384*2, 128..1024+128)";
  text("variants", o.variants, "variants with options, families, ids with * and ?, 'all' or 'default'", axes);
  text("n", o.n, "sequence lengths", axes);
  text("kv-len", o.kv_len, "keys, where not as many as queries", axes);
  text("causal", o.causal, "no, yes or both", axes);
  text("threads", o.threads, "threads of the pool (default: all usable cores)", axes);
  text("batch", o.batch, "sequences", axes);
  text("heads", o.heads, "query heads", axes);
  text("kv-heads", o.kv_heads, "key and value heads (default: as heads)", axes);
  text("head-dim", o.head_dim, "width of queries and keys", axes);
  text("value-dim", o.value_dim, "width of values (default: as head-dim)", axes);
  text("seed", o.seed, "seeds of inputs and parameters", axes);
  app.add_option("--input", o.inputs, "where Q, K, V come from: text:FILE, iid:TAU, npy:Q,K,V, ...; may be given several times")
      ->group(axes)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  text("isa", o.isa, "instruction sets: avx512, avx2, neon, scalar (default: the best here)", axes);
  app.add_option("--plugin", o.plugins, "shared library with a variant; may be given several times")
      ->group(axes)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);

  const char* measuring = "Measuring";
  const auto whole = [&](const char* flag, index_t& value, index_t low, index_t high, const char* doc) {
    app.add_option(std::string("--") + flag, value, doc)
        ->multi_option_policy(last)
        ->group(measuring)
        ->check(CLI::Range(low, high))
        ->capture_default_str();
  };
  const auto seconds = [&](const char* flag, double& value, const char* doc) {
    app.add_option(std::string("--") + flag, value, doc)
        ->multi_option_policy(last)
        ->group(measuring)
        ->check(CLI::Range(0.0, 1e7))
        ->capture_default_str();
  };
  whole("samples", o.samples, 1, 10'000, "timed samples of a cell, over all rounds");
  whole("rounds", o.rounds, 1, 100, "rounds in shuffled order that the samples are spread over");
  seconds("sample-time", o.sample_time_s, "least seconds of a sample: short runs are repeated");
  seconds("timeout", o.timeout_s, "seconds after which a cell's worker is killed");
  seconds("budget", o.budget_s, "seconds after which no cell is started (0: none)");
  text("memory-limit", o.memory_limit, "of a worker, such as 8G (default: four fifths of what is available)", measuring);
  app.add_flag("--pin,!--no-pin", o.pin, "bind threads to cores")->group(measuring)->multi_option_policy(last);
  text("order-seed", o.order_seed, "seed of the shuffled order", measuring);

  const char* output = "Output";
  text("out", o.out, "CSV file (default: results/sweep-DATE.csv)", output);
  text("jsonl", o.jsonl, "the same rows as JSON lines", output);
  app.add_flag("--force", o.force, "replace the output file")->group(output)->multi_option_policy(last);
  app.add_flag("--resume", o.resume, "go on with the output file, skipping the cells it holds")
      ->group(output)
      ->multi_option_policy(last);
  app.add_flag("-q,--quiet", o.quiet, "no progress, no table")->group(output)->multi_option_policy(last);
  text("baseline", o.baseline, "variant that the table's times are relative to", output);
  app.add_option("--table", o.table, "the table on stdout: text or md")
      ->multi_option_policy(last)
      ->check(CLI::IsMember({"text", "md"}))
      ->group(output)
      ->capture_default_str();

  const char* instead = "Instead of a sweep";
  app.add_option("--list", o.list, "variants, options, inputs: text, md or json")
      ->expected(0, 1)
      ->default_str("text")
      ->multi_option_policy(last)
      ->check(CLI::IsMember({"text", "md", "json"}))
      ->group(instead);
  app.add_flag("--columns", o.columns, "the CSV's columns")->group(instead)->multi_option_policy(last);
  app.add_flag("--dry-run", o.dry_run, "what would be measured")->group(instead)->multi_option_policy(last);
  app.add_flag("--version", o.version, "version, commit and libraries")->group(instead)->multi_option_policy(last);
}

// --name=value for everything that a variable sets.
std::vector<std::string> from_environment(const CLI::App& app) {
  std::vector<std::string> arguments;
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) {
      if (name == "help" || name == "config") continue;
      if (const char* value = std::getenv(variable_name(name).c_str())) arguments.push_back("--" + name + "=" + value);
    }
  }
  return arguments;
}

Result<std::string> as_text(const toml::node& node, const std::string& key) {
  if (const auto* s = node.as_string()) return s->get();
  if (const auto* i = node.as_integer()) return std::to_string(i->get());
  if (const auto* f = node.as_floating_point()) return format_number(f->get());
  if (const auto* b = node.as_boolean()) return std::string(b->get() ? "true" : "false");
  return refuse("config key '" + key + "' is neither text, number, truth value nor a list of these");
}

Result<std::vector<std::string>> from_config(const std::string& path) {
  const auto text = read_file(path);
  if (!text) return refuse("config file: " + text.reason());
  return config_arguments(*text, path);
}

std::string closest_flag(const CLI::App& app, const std::string& given) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return nearest(given.substr(0, given.find('=')), names);
}

CommandLine usage(const std::string& reason) { return {CommandLine::Then::exit, 2, "attn_sweep: " + reason + "\n", {}}; }

}  // namespace

Result<std::vector<std::string>> config_arguments(std::string_view text, const std::string& path) {
  std::vector<std::string> arguments;
  try {
    const toml::table file = toml::parse(text);
    for (const auto& [key, node] : file) {
      const std::string name(key.str());
      std::vector<std::string> values;
      if (const auto* list = node.as_array()) {
        for (const auto& element : *list) {
          auto value = as_text(element, name);
          if (!value) return value.refusal();
          values.push_back(*std::move(value));
        }
      } else {
        auto value = as_text(node, name);
        if (!value) return value.refusal();
        values.push_back(*std::move(value));
      }
      if (name == "config") return refuse("config file '" + path + "' names another config file");
      const bool repeats = name == "input" || name == "plugin";
      if (!repeats) values = {join(values, ",")};
      for (const auto& value : values) arguments.push_back("--" + name + "=" + value);
    }
  } catch (const toml::parse_error& e) {
    return refuse("config file '" + path + "' cannot be read: " + std::string(e.description()) + " (line " +
                  std::to_string(e.source().begin.line) + ")");
  }
  return arguments;
}

CommandLine parse_command_line(const std::vector<std::string>& given) {
  CommandLine line;
  CLI::App app("Measures attention variants: speed, memory and accuracy against sequence length.", "attn_sweep");
  declare(app, line.options);
  std::string config;
  app.add_option("--config", config, "TOML file with the same names")->group("Output");
  app.footer("Every flag is also a variable (--head-dim: ATTN_HEAD_DIM) and a key of the --config file.");

  // A flag given further right wins: file, then variables, then the command line itself. Repeatable flags do not mix:
  // the rightmost source that names one is the only one heard.
  std::vector<std::vector<std::string>> sources;
  for (std::size_t i = 0; i < given.size(); ++i) {
    std::string path;
    if (given[i].rfind("--config=", 0) == 0) path = given[i].substr(9);
    if (given[i] == "--config" && i + 1 < given.size()) path = given[i + 1];
    if (path.empty()) continue;
    auto arguments = from_config(path);
    if (!arguments) return usage(arguments.reason());
    sources.push_back(*std::move(arguments));
  }
  if (const char* path = std::getenv("ATTN_CONFIG"); path != nullptr && sources.empty()) {
    auto arguments = from_config(path);
    if (!arguments) return usage(arguments.reason());
    sources.push_back(*std::move(arguments));
  }
  sources.push_back(from_environment(app));
  sources.push_back(given);
  std::vector<std::string> arguments;
  for (auto source = sources.begin(); source != sources.end(); ++source) {
    for (const auto& argument : *source) {
      const auto names = [&](const std::string& flag) { return argument == flag || argument.rfind(flag + "=", 0) == 0; };
      const bool overruled =
          (names("--input") || names("--plugin")) && std::any_of(source + 1, sources.end(), [&](const auto& later) {
            const std::string flag = argument.substr(0, argument.find('='));
            return std::any_of(later.begin(), later.end(),
                               [&](const auto& other) { return other == flag || other.rfind(flag + "=", 0) == 0; });
          });
      if (!overruled) arguments.push_back(argument);
    }
  }

  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes the vector from its back
  try {
    app.parse(arguments);
  } catch (const CLI::CallForHelp&) {
    return {CommandLine::Then::exit, 0, app.help(), {}};
  } catch (const CLI::ExtrasError& e) {
    for (const auto& argument : given) {
      const std::string close = closest_flag(app, argument);
      if (argument.rfind("--", 0) == 0 && app.get_option_no_throw(argument.substr(0, argument.find('='))) == nullptr) {
        return usage("unknown flag " + argument + (close.empty() ? "" : ", did you mean " + close + "?") +
                     " (--help names them all)");
      }
    }
    return usage(std::string(e.what()) + " (--help names all flags)");
  } catch (const CLI::ParseError& e) {
    return usage(e.what());
  }
  if (line.options.resume && line.options.force) return usage("--resume and --force exclude each other");
  if (app.get_option("--list")->count() > 0 && line.options.list.empty()) line.options.list = "text";
  return line;
}

}  // namespace attn
