// What a user asks of attn_sweep: flags, ATTN_* variables and a TOML file under the same names.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attn/cell/axes.hpp"
#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"
#include "attn/sweep/begun.hpp"

namespace attn {

struct SweepOptions {
  Asked axes;
  // With --resume: what the file was begun with, where its context tells, and what this call itself says of its axes.
  std::optional<Begun> begun;
  Asked said;
  std::vector<std::string> plugins;
  std::string prefer;                    // empty, or plugin
  std::vector<std::string> guests;       // commands
  std::vector<std::string> guest_specs;  // what they said of themselves, for workers (attn/guest/spec.hpp)
  // Measuring
  index_t samples = 9;
  index_t rounds = 3;
  double steady_percent = 0;  // wider intervals get further rounds (Schedule::wants_more); 0: none do
  double sample_time_s = 0.01;
  double timeout_s = 60;
  double budget_s = 0;  // 0: none
  std::string memory_limit;
  bool pin = true;
  std::string launcher;  // of ranks; empty: Open MPI's, here
  std::string peaks;     // context of an earlier sweep; empty: measured
  std::string order_seed = "1";
  std::string fidelity = "rows";  // none, rows or full
  index_t fidelity_seeds = 5;
  double iso_error = 0;             // 0: variants as they are given
  std::optional<double> iso_skill;  // likewise where there is none
  std::string against;              // variant clocked in turn with every other; empty: none
  // Output
  std::string out;
  std::string jsonl;
  std::string save_output;  // folder
  bool force = false;
  bool resume = false;
  bool quiet = false;
  std::string baseline = "full";
  std::string table = "text";  // or "md"
  // Instead of a sweep
  bool doctor = false;
  std::string machine_root = "/";  // where proc and sys are read
  bool verify = false;
  std::string property = "all";
  std::string format = "text";  // of --verify and --explain: or "md", "json"
  std::string list;             // "text", "md" or "json"
  std::string explain;          // variants, by --format
  bool columns = false;
  std::string plan;     // file
  std::string scaling;  // numbers of threads; empty: a sweep
  double bandwidth_gbs = 0;
  bool dry_run = false;
  bool version = false;

  // What the flag of an axis says; none where it is not given.
  std::optional<std::string> asked(std::string_view axis) const;
};

struct CommandLine {
  enum class Then { run, exit } then = Then::run;
  int exit_code = 0;  // for exit
  std::string text;   // what to print before an exit: help to stdout (code 0), a refusal to stderr
  SweepOptions options;
};

// Precedence: flag, then variable, then --config file, then default.
CommandLine parse_command_line(const std::vector<std::string>& given);

}  // namespace attn
