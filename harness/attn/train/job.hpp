// A training run as the program sees it: what is asked of a worker process and what it answers.
#pragma once

#include <string>

#include "attn/train/training.hpp"

namespace attn {

struct Job {
  std::string task, variant;  // names with options
  index_t length = 64;
  RunSettings settings;
};

// Question and answer of a worker, as JSON.
std::string to_json(const Job& job);
Job job_from_json(const std::string& text);
std::string to_json(const RunResult& result, index_t peak_memory_bytes);
RunResult result_from_json(const std::string& text, index_t& peak_memory_bytes);

}  // namespace attn
