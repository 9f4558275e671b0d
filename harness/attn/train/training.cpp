#include "attn/train/training.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "attn/core/time.hpp"
#include "attn/train/chrf.hpp"

namespace attn {

namespace {

constexpr std::size_t recent = 20;        // batches that figures of the moment are averaged over
constexpr double reached = 0.99;          // steps_to_99
constexpr double solved = 0.998;          // ends the run: what is left to learn is below the test's resolution
constexpr index_t report_every = 20;      // steps
constexpr double improving_slope = 0.05;  // relative fall of the loss from the fifth before last to the last fifth
constexpr index_t test_batch = 64;

struct Count {
  double right = 0, asked = 0;
};

// Answers of the sequences first .. first+count-1 that are right; where they are decoded, sequences that are right as a whole.
Count count_right(Pool pool, const Indices& answered, const Indices& targets, index_t first, index_t count) {
  Count c;
  for (index_t i = first; i < first + count; ++i) {
    Count own;
    for (index_t a = 0; a < targets.extent(1); ++a) {
      if (targets(i, a) < 0) continue;
      own.right += answered(i, a) == targets(i, a);
      own.asked += 1;
    }
    c.right += pool == Pool::decoded ? static_cast<double>(own.right == own.asked) : own.right;
    c.asked += pool == Pool::decoded ? 1 : own.asked;
  }
  return c;
}

// What the model answers, told nothing but the question: [batch, answers].
Indices answered(const ModelShape& shape, const Variant& variant, const ParameterSet<float>& parameters, const Tokens& tokens) {
  if (shape.pool == Pool::decoded) return decode(shape, variant, parameters, tokens);
  return argmax(logits(shape, variant, parameters, tokens));
}

// One batch of a step: samples of their own, or some of those that there are.
std::vector<Sample> training_samples(const Task& task, const RunSettings& s, index_t step, double progress) {
  if (s.samples == 0) return samples(task, Split::train, s.seed, step * s.batch, s.batch, progress);
  const Rng order(s.seed, "order of samples");
  std::vector<Sample> list;
  for (index_t i = step * s.batch; i < (step + 1) * s.batch; ++i)
    list.push_back(samples(task, Split::train, s.seed, order.below(i, s.samples), 1, progress).front());
  return list;
}

double mean_of(const std::vector<double>& values, std::size_t first, std::size_t last) {
  return std::accumulate(values.begin() + static_cast<std::ptrdiff_t>(first), values.begin() + static_cast<std::ptrdiff_t>(last),
                         0.0) /
         static_cast<double>(last - first);
}

double mean_of_last(const std::vector<double>& values, std::size_t count) {
  return mean_of(values, values.size() - std::min(values.size(), count), values.size());
}

bool falls(const std::vector<double>& losses) {
  const std::size_t fifth = losses.size() / 5;
  if (fifth == 0) return false;
  const double before = mean_of(losses, losses.size() - 2 * fifth, losses.size() - fifth);
  return mean_of_last(losses, fifth) < (1 - improving_slope) * before;
}

std::vector<Sample> test_samples(const Task& task, index_t count) {
  constexpr std::uint64_t test_seed = 1;  // one test set for all seeds of training
  return samples(task, Split::test, test_seed, 0, count);
}

// Answers of one sequence are not independent: the interval counts as many trials as explain the spread between sequences.
void test_model(const Task& task, const ModelShape& shape, const Variant& variant, const ParameterSet<float>& parameters,
                index_t count, RunResult& result) {
  const std::vector<Sample> test = test_samples(task, count);
  double right = 0, asked = 0, sum_of_squares = 0;
  Chrf chrf;
  for (index_t first = 0; first < count; first += test_batch) {
    const index_t here = std::min(test_batch, count - first);
    const Batch batch = to_batch(task, {test.begin() + first, test.begin() + first + here});
    const Indices answers = answered(shape, variant, parameters, batch.tokens);
    const auto text = [&](const Indices& of, index_t i) {
      return task.spelled({of.data() + i * of.extent(1), static_cast<std::size_t>(of.extent(1))});
    };
    for (index_t i = 0; i < here; ++i) {
      if (const auto wanted = text(batch.targets, i)) chrf.add(*text(answers, i), *wanted);
      const Count c = count_right(shape.pool, answers, batch.targets, i, 1);
      right += c.right;
      asked += c.asked;
      sum_of_squares += (c.right / c.asked) * (c.right / c.asked);
    }
  }
  const auto sequences = static_cast<double>(count);
  const double p = right / asked;
  const double variance_of_mean = (sum_of_squares / sequences - p * p) / sequences;
  const double trials = variance_of_mean > 0 ? std::min(asked, p * (1 - p) / variance_of_mean) : sequences;
  result.accuracy = p;
  const Proportion interval = wilson(p, trials);
  result.low = interval.low;
  result.high = interval.high;
  if (chrf.any()) result.chrf = chrf.score();
  result.levels = task.levels(test);
}

// The task at the longer length.
Result<std::unique_ptr<Task>> longer_task(const Task& task, const RunSettings& settings) {
  return make_task(task.name, task.length * settings.extrapolate);
}

void test_longer(const Task& task, const Variant& variant, const RunSettings& settings, const ParameterSet<float>& parameters,
                 RunResult& result) {
  const auto longer = longer_task(task, settings);
  ATTN_ASSERT(longer);
  RunResult there;
  test_model(**longer, model_shape(**longer, settings), variant, parameters,
             std::max<index_t>(1, settings.test_samples / settings.extrapolate), there);
  result.longer_accuracy = there.accuracy;
  result.longer_skill = skill(there.accuracy, highest_floor(there.levels).accuracy);
}

}  // namespace

Status supports_longer(const Task& task, const Variant& variant, const RunSettings& settings) {
  const auto longer = longer_task(task, settings);
  if (!longer) return longer.refusal();
  const std::string at = " at N=" + std::to_string((*longer)->length);
  if ((*longer)->symbols != task.symbols || (*longer)->classes != task.classes)
    return refuse(task.name + " has other symbols or answers" + at + ": give the options that follow from N");
  const ModelShape shape = model_shape(**longer, settings);
  if (Status status = supports(shape, variant); !status) return status;
  const Parameters own = model_parameters(model_shape(task, settings), variant), there = model_parameters(shape, variant);
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (own[i].shape != there[i].shape)
      return refuse("learns '" + own[i].name + "' for N=" + std::to_string(task.length) + " and cannot be tested" + at);
  }
  return {};
}

ModelShape model_shape(const Task& task, const RunSettings& settings) {
  return {.layer = settings.layer,
          .layers = settings.layers,
          .body = settings.body,
          .length = task.length,
          .symbols = task.symbols,
          .classes = task.classes,
          .pool = task.pool,
          .answers = task.answers,
          .end = task.end_class,
          .beam = settings.beam};
}

Proportion wilson(double p, double n) {
  constexpr double z = 1.959964;
  const double middle = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

double skill(double accuracy, double floor) { return (accuracy - floor) / (1 - floor); }

const Level& highest_floor(const std::vector<Level>& levels) {
  ATTN_ASSERT(!levels.empty() && levels.front().floor);
  return *std::max_element(levels.begin(), levels.end(), [](const Level& a, const Level& b) {
    return (a.floor ? a.accuracy : -1) < (b.floor ? b.accuracy : -1);
  });
}

RunResult train(const Task& task, const Variant& variant, const RunSettings& settings,
                const std::function<bool(index_t, double, double)>& progress) {
  const ModelShape shape = model_shape(task, settings);
  const Parameters specs = model_parameters(shape, variant);
  ParameterSet<float> parameters = make_parameters(specs, settings.seed);
  std::vector<std::string> names;
  std::vector<Tensor<float>> trained;
  RunResult result;
  for (const auto& spec : specs) {
    if (!spec.trainable) continue;
    names.push_back(spec.name);
    trained.push_back(parameters[spec.name]);
    result.parameter_count += trained.back().size();
  }
  AdamW optimiser;
  std::vector<double> losses, accuracies;
  const double begin_s = monotonic_s();
  for (index_t step = 0; step < settings.steps; ++step) {
    const double fraction = static_cast<double>(step) / static_cast<double>(settings.steps);
    const Batch batch = to_batch(task, training_samples(task, settings, step, fraction));
    std::vector<Tensor<float>> leaves;
    for (std::size_t i = 0; i < names.size(); ++i) {
      leaves.push_back(variable(trained[i]));
      parameters.set(names[i], leaves[i]);
    }
    const Tensor<float> answer = logits(shape, variant, parameters, batch.tokens);
    const Tensor<float> loss = cross_entropy(answer, batch.targets);
    const Count c = count_right(task.pool, argmax(answer), batch.targets, 0, settings.batch);
    losses.push_back(static_cast<double>(loss.item()));
    accuracies.push_back(c.right / c.asked);
    result.steps = step + 1;
    const double norm = optimiser.step(trained, gradients(loss, leaves), settings.rate * schedule(step, settings.steps));
    if (!std::isfinite(losses.back()) || !std::isfinite(norm)) {
      result.ending = Ending::diverged;
      result.loss = losses.back();
      result.train_s = monotonic_s() - begin_s;
      return result;
    }
    const double accuracy = mean_of_last(accuracies, recent);
    if (progress && (step + 1) % report_every == 0 && !progress(step + 1, mean_of_last(losses, recent), accuracy)) return result;
    // A task that begins with easier samples is not judged by them.
    if (accuracies.size() < recent || fraction < task.full_difficulty_from()) continue;
    if (result.steps_to_99 == 0 && accuracy >= reached) result.steps_to_99 = step + 1;
    if (accuracy >= solved) break;
  }
  result.train_s = monotonic_s() - begin_s;
  result.loss = mean_of_last(losses, recent);
  result.train_accuracy = mean_of_last(accuracies, recent);
  result.still_improving = result.steps_to_99 == 0 && falls(losses);
  for (std::size_t i = 0; i < names.size(); ++i) parameters.set(names[i], trained[i]);
  test_model(task, shape, variant, parameters, settings.test_samples, result);
  if (settings.extrapolate > 1) test_longer(task, variant, settings, parameters, result);
  return result;
}

}  // namespace attn
