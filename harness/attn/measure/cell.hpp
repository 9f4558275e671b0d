// A cell is one measurement to be made, a Measurement is what came of it. Both cross the process boundary as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

struct Cell {
  std::string variant;  // canonical name, id:options
  Problem problem;
  std::string input;  // canonical name
  std::uint64_t seed = 1;
  int threads = 1;
  std::string isa;  // empty: the best this machine has
};

// How a worker measures; the same for all cells of a sweep.
struct Settings {
  int samples = 3;             // timed samples in this round
  double sample_min_s = 0.01;  // a sample repeats the run until it lasts this long
  bool gate = true;            // compare with the definition before timing (the first round of a cell)
  bool clock = true;           // false: gate and meters only
  bool pin = true;
  index_t memory_limit_bytes = 0;  // 0: none
};

enum class Outcome { ok, unsupported, inaccurate, timed_out, out_of_memory, crashed, skipped_budget };
std::string_view to_string(Outcome outcome);

// Fast path against its own definition.
struct GateResult {
  bool done = false;
  std::string scope;         // "whole", "rows" (sampled rows of this problem) or "twin" (a shorter problem)
  double max_abs = 0;        // max |fast - definition in double|
  double relative = 0;       // Frobenius norm of the difference over that of the definition
  double allowance_abs = 0;  // twice the error of the definition in float, plus a floor
};

// Output against softmax attention on the same Q, K, V, at sampled rows.
struct Fidelity {
  bool done = false;
  std::string reason;     // why there is none
  double skill = 0;       // 1 - (error / error of answering mean(V))^2
  double relative = 0;    // Frobenius norm of the difference over that of softmax attention
  double worst_row = 0;   // largest relative error of a row
  double cosine_p50 = 0;  // median over rows of the cosine
};

struct Measurement {
  Outcome outcome = Outcome::ok;
  std::string reason;
  std::string isa;
  std::vector<double> samples_s;  // seconds a run, one entry a sample
  GateResult gate;
  Fidelity fidelity;
  Cost cost;
  index_t workspace_bytes = 0;
  index_t parameter_bytes = 0;
  index_t peak_rss_bytes = 0;  // above the level after planning, before parameters, workspace and the first run; -1: unreadable
  double setup_s = 0;          // process start to first timed sample, gate excluded
  double fma_gflops = 0;       // FMA probe beside the samples, same ISA and threads
};

std::string to_json(const Cell& cell, const Settings& settings);
std::string to_json(const Measurement& m);
// Text that another process of this build wrote; throws std::exception when it is torn.
void from_json(const std::string& text, Cell& cell, Settings& settings);
Measurement measurement_from_json(const std::string& text);

}  // namespace attn
