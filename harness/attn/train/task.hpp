// Tasks that a model is trained on: generated, seeded, offline. What a variant's page is to a mixer, a task's struct is to a task.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attn/layer/model.hpp"
#include "attn/train/draws.hpp"
#include "attn/variant/options.hpp"

namespace attn {

// One sequence with its answers.
struct Sample {
  std::vector<index_t> symbols;  // length * streams; -1: no symbol
  std::vector<index_t> at;       // positions that are asked, with Pool::chosen
  // The class at each of them; one with Pool::mean; with Pool::decoded as many as Task::answers, -1 behind the end.
  std::vector<index_t> targets;
};

// An accuracy with a meaning, computed on the test set itself: what answers without the skill score, or what a limited reach
// allows.
struct Level {
  std::string name;
  double accuracy = 0;
  bool floor = true;  // reached without the skill that the task asks for
};

// How a task is trained unless the user says otherwise.
struct Recipe {
  LayerShape layer;
  index_t layers = 1;
  Body body = Body::layers;
  index_t batch = 32;
  index_t steps = 1000;
  double rate = 3e-3;
};

class Task {
 public:
  virtual ~Task() = default;

  std::string name;  // id:options, those that differ from the default
  index_t length = 0, streams = 1, symbols = 0, classes = 0;
  index_t answers = 1;     // with Pool::decoded, the end of what is answered among them where it has no fixed length
  index_t end_class = -1;  // with Pool::decoded, the class behind which nothing is asked; -1: none
  Pool pool = Pool::mean;
  index_t test_size = 0;  // samples that are held out for the test; 0: as many as are asked for
  Recipe recipe;
  // What full attention must reach for the point to say anything about other variants; 0: nobody is expected to.
  double control_bar = 0;

  // progress in [0, 1]: where training stands, for tasks that begin with easier samples. Test samples are those of 1.
  virtual Sample sample(Draws& draws, double progress) const = 0;
  // Of what training never shows; with test_size number 0 .. test_size-1 of it.
  virtual Sample test_sample(Draws& draws, index_t, double progress) const { return sample(draws, progress); }
  virtual double full_difficulty_from() const { return 0; }  // from this progress on, samples are as hard as the test's
  // Default: the most frequent answer; with Pool::decoded the most frequent sequence of them.
  virtual std::vector<Level> levels(const std::vector<Sample>& test) const;
  // With Pool::decoded: the text that answers stand for, up to their end; none where they stand for no text.
  virtual std::optional<std::string> spelled(std::span<const index_t>) const { return std::nullopt; }
};

// Registered tasks, not yet sized.
struct TaskType {
  std::string id, doc;
  std::vector<OptionDoc> options;
  std::function<Status(std::string_view options)> check;  // whether they can be read
  std::function<Result<std::unique_ptr<Task>>(std::string_view options, index_t length)> make;
};
const std::vector<TaskType>& task_types();

// Whether "mqar:kv=8" is a task with options, at any length.
Status check_task(std::string_view name);

// The task at a length. Refuses what check_task does, and lengths that no sequence of the task fits.
Result<std::unique_ptr<Task>> make_task(std::string_view name, index_t length);

enum class Split { train, test };

// Samples first .. first+count-1 of a split; a pure function of (task, split, seed, index, progress).
std::vector<Sample> samples(const Task& task, Split split, std::uint64_t seed, index_t first, index_t count, double progress = 1);

struct Batch {
  Tokens tokens;
  Indices targets;  // [batch, answers]
};
Batch to_batch(const Task& task, const std::vector<Sample>& list);

}  // namespace attn
