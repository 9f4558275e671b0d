// Which runs an attn_train makes of its options.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attn/train/options.hpp"
#include "attn/train/row.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// A task at a length, with so many training samples: what is compared with each other, and with full attention as the control.
struct Point {
  std::string task;
  index_t length = 0;
  index_t samples = 0;
  double control_bar = 0;  // none where samples are few: how much they teach full attention is a result like another
};

struct PlannedRun {
  Job job;
  std::size_t point = 0;
  bool control = false;
  std::string refusal;  // not empty: no run, only a row
};

struct TrainPlan {
  std::vector<Point> points;
  std::vector<PlannedRun> runs;  // controls first
};

// Refuses what no row can tell: unknown names and values that are no numbers. What cannot be trained is a run with a refusal.
Result<TrainPlan> plan_training(const TrainOptions& options, const Registry& registry);

// A run's work as far as the time left goes; 0 of one that is refused.
double tokens(const PlannedRun& run);

// For machines that train a part each (scripts/cluster): tab-separated lines behind lines of '#' that name program and build. A line is one point
// with one seed, all variants and rates, the control among them: number, estimated seconds, runs, heading, and what attn_train is to be called
// with, quoted for a shell.
std::string plan_text(const TrainPlan& plan, const TrainOptions& options);

// A command that repeats one run.
std::string repeat_command(const Job& job, const TrainOptions& options);

}  // namespace attn
