// One training run: one variant, one task, one seed, one learning rate, on one thread. Its figures are a function of these alone.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "attn/train/adamw.hpp"
#include "attn/train/task.hpp"

namespace attn {

struct RunSettings {
  LayerShape layer;
  index_t layers = 1;
  Body body = Body::layers;
  index_t batch = 32;
  index_t steps = 1000;  // the budget; a solved task ends earlier
  double rate = 3e-3;
  std::uint64_t seed = 1;
  index_t test_samples = 2048;
  index_t extrapolate = 1;  // times as long sequences of the same task that the model is tested on, too; 1: none
  index_t beam = 1;         // hypotheses in the test, where answers are decoded
  index_t samples = 0;      // training draws from so many at random, again and again; 0: a new one each time
};

ModelShape model_shape(const Task& task, const RunSettings& settings);

// Whether a model of this task can be tested on sequences that are `settings.extrapolate` times as long; if not, why.
Status supports_longer(const Task& task, const Variant& variant, const RunSettings& settings);

enum class Ending { finished, diverged };

struct RunResult {
  Ending ending = Ending::finished;
  index_t steps = 0;          // taken; where it diverged
  index_t steps_to_99 = 0;    // until the accuracy of the last 20 batches, each before it was learned from, reached 99 %; 0: never
  double loss = 0;            // mean over the last 20 batches
  double train_accuracy = 0;  // of the same batches, before each was learned from
  bool still_improving = false;
  double accuracy = 0, low = 0, high = 0;  // on the test samples, with a 95 % interval; a decoded sequence is right as a whole
  std::optional<double> chrf;              // of decoded text
  std::vector<Level> levels;               // of the same samples
  double longer_accuracy = 0, longer_skill = 0;  // with RunSettings::extrapolate, on as many tokens of longer sequences
  double train_s = 0;                            // in steps, samples included; the test is not
  index_t parameter_count = 0;                   // trained numbers
};

// progress(step, loss, accuracy) from time to time; returning false ends the run early (its result means nothing then).
RunResult train(const Task& task, const Variant& variant, const RunSettings& settings,
                const std::function<bool(index_t step, double loss, double accuracy)>& progress = {});

// 95 % interval of a proportion p seen over n trials: Wilson 1927.
struct Proportion {
  double low, high;
};
Proportion wilson(double p, double n);

// (accuracy - floor) / (1 - floor)
double skill(double accuracy, double floor);
const Level& highest_floor(const std::vector<Level>& levels);

}  // namespace attn
