// A training run as the program sees it: what is asked of a worker process, what it answers, and the row that comes of it.
#pragma once

#include <string>
#include <vector>

#include "attn/train/training.hpp"

namespace attn {

struct Job {
  std::string task, variant;  // names with options
  index_t length = 64;
  RunSettings settings;
};

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

struct TrainRow {
  Job job;
  std::string id, options, family, exactness;  // of the variant
  Verdict verdict = Verdict::ok;
  std::string reason;
  RunResult result;
  index_t peak_memory_bytes = -1;  // -1: not measured
  index_t state_bytes = -1;        // of a layer and sequence; -1: refused
  std::string finished, commit, command;

  bool trained() const { return verdict == Verdict::ok || verdict == Verdict::still_improving || verdict == Verdict::inconclusive; }
};

// One column of the CSV. This list is the only place where a column exists.
struct TrainColumn {
  std::string name, doc;
  std::string (*value)(const TrainRow&);  // "" = not measured
};
const std::vector<TrainColumn>& train_columns();
inline constexpr int train_schema = 1;

std::string train_header();
std::string train_line(const TrainRow& row);
std::string train_columns_text();

// What makes two rows the same run.
std::string job_key(const Job& job);
std::string job_key(const std::vector<std::string>& record);
// A column of a CSV record.
const std::string& field(const std::vector<std::string>& record, std::string_view column);

// Question and answer of a worker, as JSON.
std::string to_json(const Job& job);
Job job_from_json(const std::string& text);
std::string to_json(const RunResult& result, index_t peak_memory_bytes);
RunResult result_from_json(const std::string& text, index_t& peak_memory_bytes);

}  // namespace attn
