// A cell is one measurement to be made, a Measurement is what came of it. Both cross the process boundary as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"
#include "attn/exec/seating.hpp"
#include "attn/inputs/tensors.hpp"
#include "attn/variant/registry.hpp"
#include "attn/variant/remote.hpp"

namespace attn {

// Around what: the mixer alone, or the whole layer that it stands in (layer_variant.hpp).
enum class Scope { mixer, layer };
std::string_view to_string(Scope scope);
Result<Scope> parse_scope(std::string_view name);

// Where a run finds what it reads: in the caches, as the run before it left them, or in memory.
enum class CacheState { hot, cold };
std::string_view to_string(CacheState cache);
Result<CacheState> parse_cache_state(std::string_view name);

struct Cell {
  std::string variant;  // canonical name, id:options
  Problem problem;
  std::string input;  // canonical name
  std::uint64_t seed = 1;
  int threads = 1;
  int ranks = 1;    // of so many threads each
  std::string isa;  // empty: the best this machine has
  Scope scope = Scope::mixer;
  CacheState cache = CacheState::hot;
  Numa numa = Numa::local;
  std::string lengths = "equal";  // of the sequences of the batch (lengths.hpp)
  std::string shape = "none";     // the model that heads, widths and causality are of (shapes.hpp)
};

// Against softmax attention: not at all, at sampled rows, or these and the matrix of weights.
enum class Comparison { none, rows, full };

Comparison comparison_from(std::string_view name);  // "none", "rows" or "full"

// How a worker measures; the same for all cells of a sweep.
struct Settings {
  int samples = 3;                         // timed samples in this round
  double sample_min_s = 0.01;              // a sample repeats the run until it lasts this long
  bool gate = true;                        // compare with the definition before timing (the first round of a cell)
  Comparison fidelity = Comparison::rows;  // likewise in the first round
  int fidelity_seeds = 5;                  // of variants with random tables
  bool clock = true;                       // false: gate and meters only
  bool pin = true;
  std::string against;             // canonical name of the variant whose samples are taken beside this one's; empty: none
  index_t memory_limit_bytes = 0;  // 0: none
  std::string output_file;         // .npy that the output is written to; empty: none
  std::string machine_root = "/";  // where proc and sys are read
};

enum class Outcome { ok, unsupported, inaccurate, timed_out, out_of_memory, crashed, skipped_budget };
std::string_view to_string(Outcome outcome);
Result<Outcome> parse_outcome(std::string_view name);

// Fast path against its own definition.
inline constexpr std::string_view ungated = "ungated";
struct GateResult {
  bool done = false;
  std::string scope;    // "whole", "rows" (sampled rows of this problem), "twin" (a shorter problem); or `ungated`: it has none
  double max_abs = 0;   // max |fast - definition in double|
  double relative = 0;  // Frobenius norm of the difference over that of the definition
  double allowance_abs = 0;  // twice the error of the definition in float, plus a floor
};

// Weights of out = P' V against those of softmax attention, averaged over the heads.
struct MatrixFidelity {
  bool done = false;
  std::string reason;           // why there is none
  double relative = 0;          // Frobenius norm of the difference over that of softmax attention
  double js = 0;                // Jensen-Shannon divergence of a row, nats, mean over rows
  double recall_1 = 0;          // attention on the heaviest key of P', over that on its own heaviest; mean over rows
  double recall_8 = 0;          // the same for the 8 heaviest
  double recall_32 = 0;         // and the 32 heaviest
  double support_mass = 0;      // attention on keys that P' gives any weight, mean over rows
  double support_mass_p05 = 0;  // 5th percentile over the rows of all heads
  double spectral = 0;          // largest singular value of the difference over that of softmax attention
};

// Output against softmax attention on the same Q, K, V, at sampled rows; means over the seeds, where there are several.
struct Fidelity {
  bool done = false;
  std::string reason;      // why there is none
  double skill = 0;        // 1 - (error / error of answering mean(V))^2
  double relative = 0;     // Frobenius norm of the difference over that of softmax attention
  double row_p50 = 0;      // relative error of a row: median over rows,
  double row_p95 = 0;      // 95th percentile
  double worst_row = 0;    // and largest
  double cosine_p50 = 0;   // median over rows of the cosine
  int seeds = 1;           // of random tables
  double relative_sd = 0;  // standard deviation of `relative` over the seeds
  double bias = 0;         // |mean output - softmax attention|, what is due to the finite number of seeds taken off; relative
  double scatter = 0;      // root mean square distance of an output from the mean output, relative
  int lost_seeds = 0;      // of those after the first: outputs that are not finite although that one's is
  MatrixFidelity matrix;
};

// What the machine's own meters show of a run, all threads. Below zero: not shown.
struct RunMeters {
  double cycles = -1, instructions = -1, cache_misses = -1;  // in user space; of the last level
  double joules = -1;                                        // of all packages, whoever else used them
  std::string unsupported;                                   // why there are none of these or of those; empty: all are there
};

struct Measurement {
  Outcome outcome = Outcome::ok;
  std::string reason;
  std::string isa;
  std::vector<double> samples_s;  // seconds a run, one entry a sample
  std::string against;            // whose samples were taken beside these; empty: nobody's
  std::vector<double> against_s;  // those samples
  std::vector<double> append_s;   // of a decode: seconds of taking up a step's tokens, samples of their own
  double parallelism = 0;         // of a run: work over span (scaling.hpp); 0: not recorded
  RunMeters meters;
  double mixer_share = 0;                            // of a layer's time in the samples; 0: not a layer
  double choice_share = 0;                           // of a run's time, that goes into choosing keys; 0: the variant does not say
  std::string variant_note;                          // Variant::note, of the first round
  kernels::Compute compute = kernels::Compute::f32;  // Variant::compute
  bool stored = false;                               // q, k or v were rounded to a number type, and it was seen what that does:
  double storage_error = 0;                          // storage_error() of gate.hpp
  GateResult gate;
  Fidelity fidelity;
  std::string note;  // of the input
  bool placed = false;
  Placement placement;  // of the input
  std::string output_file;
  Cost cost;
  index_t workspace_bytes = 0;
  index_t parameter_bytes = 0;
  index_t state_bytes = 0;  // of a decode
  bool in_place = false;    // a step reads and writes this state, rather than reads it
  index_t peak_rss_bytes =
      0;  // above the level after planning, before parameters, workspace, state and the first run; -1: unreadable
  bool over_ranks = false;
  RankFigures ranks;
  double setup_s = 0;     // process start to first timed sample, gate excluded
  double fma_gflops = 0;  // FMA probe beside the samples, same ISA and threads
  std::string disturbed;  // what changed on the machine meanwhile (machine_state.hpp); empty: nothing
  int remeasured = 0;     // rounds that were measured again for that
};

std::string to_json(const Cell& cell, const Settings& settings);
std::string to_json(const Measurement& m);
// Text that another process of this build wrote; throws std::exception when it is torn.
void from_json(const std::string& text, Cell& cell, Settings& settings);
Measurement measurement_from_json(const std::string& text);

}  // namespace attn
