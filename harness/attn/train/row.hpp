// One row of a training CSV: a run, what came of it, and what stands around it.
#pragma once

#include <optional>
#include <string>

#include "attn/record/row_variant.hpp"
#include "attn/record/schema.hpp"
#include "attn/train/job.hpp"

namespace attn {

enum class Verdict {
  ok,
  still_improving,  // the budget ended while the loss was falling
  inconclusive,     // full attention missed its bar here, so this says nothing about the variant
  diverged,
  refused,
  timed_out,
  out_of_memory,
  crashed,
};
std::string_view to_string(Verdict verdict);
Result<Verdict> parse_verdict(std::string_view name);

struct TrainRow : RowVariant {
  Job job;
  Verdict verdict = Verdict::ok;
  std::string reason;
  RunResult result;
  index_t peak_memory_bytes = -1;  // -1: not measured
  index_t state_bytes = -1;        // of a layer and sequence; -1: refused
  std::string finished, commit, command;
  // What follows from the result. Empty: not measured.
  std::optional<double> floor, skill, steps_per_s;

  bool trained() const { return verdict == Verdict::ok || verdict == Verdict::still_improving || verdict == Verdict::inconclusive; }
};

// Left to the caller: family, exactness, verdict, reason, state, finished, commit, command.
TrainRow make_train_row(const Job& job);
// What a run that ended told.
void take_result(TrainRow& row, RunResult result, index_t peak_memory_bytes);

inline constexpr int train_csv_schema = 2;
const Schema<TrainRow>& train_schema();

// What makes two runs the same: the key of their rows.
std::string job_key(const Job& job);

}  // namespace attn
