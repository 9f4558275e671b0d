// One row of a sweep: a cell, what was measured, and what stands around it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "attn/cell/cell.hpp"
#include "attn/measure/machine.hpp"
#include "attn/record/row_variant.hpp"
#include "attn/record/schema.hpp"

namespace attn {

// What follows from samples, work and the machine's peaks; computed once, when the row is made. Empty: not measured.
struct Figures {
  std::optional<double> time_median_s, time_mad_s, time_min_s, time_ci_low_s, time_ci_high_s;
  std::optional<double> append_s, tokens_per_s;                     // of a decode
  std::optional<double> unstable;                                   // 1 or 0
  std::optional<double> ratio_median, ratio_ci_low, ratio_ci_high;  // time over that of the variant measured beside it (--against)
  std::optional<double> gflops_per_s, gbytes_per_s;
  std::optional<double> ideal_time_s, roof_fraction;
  std::string roof_binds;
  std::optional<double> peak_fma_gflops, peak_bf16_dot_gflops;
};

struct Row : RowVariant {
  Cell cell;
  Measurement measurement;  // samples of all rounds
  Figures figures;
  std::string started;  // ISO 8601, UTC
  std::string commit;
  std::string command;  // repeats this row
};

// `peak` is the machine's at the same ISA and threads. Left to the caller: describe(), started, commit, command.
Row make_row(const Cell& cell, Measurement measurement, const Peak& peak);

inline constexpr int csv_schema = 2;
const Schema<Row>& row_schema();

// Time above this relative 95 % interval of the median is marked unstable.
inline constexpr double unstable_above = 0.10;

// It ran to the end and was clocked.
bool timed(const Row& row);

// The meters of a row agree when booked workspace + parameters + state and measured peak differ by at most 10 % + 4 MiB.
bool meters_agree(const Measurement& m);

}  // namespace attn
