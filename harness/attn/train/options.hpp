// What a user asks of attn_train: flags, ATTN_* variables and a TOML file under the same names.
#pragma once

#include <string>
#include <vector>

#include "attn/core/problem.hpp"

namespace attn {

struct TrainOptions {
  // Axes
  std::vector<std::string> tasks;  // empty: mqar
  std::string variants = "full,linear";
  std::string n = "64";
  std::string seed = "1";
  std::string rate = "table";  // or "sweep", or a list
  std::string samples = "0";
  std::vector<std::string> plugins;
  std::string prefer;  // empty, or plugin
  // Model and training; empty: as the task's recipe says
  std::string body, beam, width, heads, layers, mlp, conv, positions, causal, batch, steps;
  index_t test_samples = 2048;
  index_t extrapolate = 1;
  std::string state_bytes;  // empty: heads are as the recipe or the user says
  // Running
  index_t jobs = 0;  // 0: all usable cores
  double timeout_s = 7200;
  std::string memory_limit;
  // Output
  std::string out;
  bool force = false;
  bool resume = false;
  bool quiet = false;
  // Instead of training
  bool list = false;
  bool columns = false;
  std::string plan;  // file
  bool dry_run = false;
  bool version = false;
};

struct TrainCommandLine {
  bool exit = false;
  int exit_code = 0;
  std::string text;  // what to print before an exit: help to stdout (code 0), a refusal to stderr
  TrainOptions options;
};

// What was asked for, for the context beside the CSV. Where --resume is given and no axis and nothing of the model, that is what it goes
// on with.
std::string asked_json(const TrainOptions& options);

TrainCommandLine parse_train_command_line(const std::vector<std::string>& arguments);

}  // namespace attn
