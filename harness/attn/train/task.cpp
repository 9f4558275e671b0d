#include "attn/train/task.hpp"

#include <algorithm>
#include <map>

#include "attn/train/tasks.hpp"

namespace attn {

std::vector<Level> Task::levels(const std::vector<Sample>& test) const {
  std::map<std::vector<index_t>, double> counts;
  double all = 0, most = 0;
  const auto count = [&](const std::vector<index_t>& answer) {
    most = std::max(most, counts[answer] += 1);
    all += 1;
  };
  for (const Sample& sample : test) {
    if (pool == Pool::decoded) {
      count(sample.targets);
    } else {
      for (const index_t target : sample.targets) count({target});
    }
  }
  return {{"constant", most / all}};
}

const std::vector<TaskType>& task_types() {
  static const std::vector<TaskType> types = {mqar_task(),      marker_task(),
                                              needle_task(),    selective_copying_task(),
                                              induction_task(), associative_recall_task(),
                                              listops_task(),   majority_task(),
                                              parity_task(),    word_task(),
                                              glyphs_task(),    pathfinder_task(),
                                              retrieval_task(), reverse_task(),
                                              sort_task(),      translate_task(),
                                              language_task(),  switching_task(),
                                              captions_task()};
  return types;
}

std::string task_name(const std::string& id, const OptionValues& options, const std::vector<OptionDoc>& docs) {
  const OptionValues own = without_defaults(options, docs);
  return own.empty() ? id : id + ":" + own.text();
}

namespace {

struct Named {
  const TaskType* type;
  std::string_view options;
};

Result<Named> find_task(std::string_view name) {
  const auto colon = name.find(':');  // a task has no implementations: this is no VariantName
  const auto id = trim(name.substr(0, colon));
  std::vector<std::string> ids;
  for (const TaskType& type : task_types()) {
    if (type.id == id) return Named{&type, colon == std::string_view::npos ? std::string_view{} : name.substr(colon + 1)};
    ids.push_back(type.id);
  }
  const std::string close = nearest(id, ids);
  return refuse("unknown task '" + std::string(id) + "'" + (close.empty() ? "" : ", did you mean '" + close + "'?") +
                "; accepted: " + join(ids, ", "));
}

}  // namespace

Status check_task(std::string_view name) {
  auto named = find_task(name);
  if (!named) return named.refusal();
  const Status status = named->type->check(named->options);
  return status ? status : refuse(named->type->id + ": " + status.reason());
}

Result<std::unique_ptr<Task>> make_task(std::string_view name, index_t length) {
  auto named = find_task(name);
  if (!named) return named.refusal();
  auto task = named->type->make(named->options, length);
  return task ? std::move(task) : refuse(named->type->id + ": " + task.reason());
}

std::vector<Sample> samples(const Task& task, Split split, std::uint64_t seed, index_t first, index_t count, double progress) {
  const Rng rng(seed, task.name + (split == Split::train ? " train" : " test") + std::to_string(task.length));
  std::vector<Sample> list;
  for (index_t i = first; i < first + count; ++i) {
    Draws draws(rng.substream(static_cast<std::uint64_t>(i)));
    list.push_back(split == Split::train ? task.sample(draws, progress) : task.test_sample(draws, i, progress));
  }
  return list;
}

Batch to_batch(const Task& task, const std::vector<Sample>& list) {
  const auto count = static_cast<index_t>(list.size());
  const auto answers = static_cast<index_t>(list.front().targets.size());
  Batch batch{{Indices({count, task.length, task.streams}), Indices({count, answers}), Indices({count, answers})},
              Indices({count, answers})};
  index_t* symbols = batch.tokens.symbols.writable();
  index_t* at = batch.tokens.at.writable();
  index_t* before = batch.tokens.before.writable();
  index_t* targets = batch.targets.writable();
  for (const Sample& sample : list) {
    ATTN_ASSERT(static_cast<index_t>(sample.symbols.size()) == task.length * task.streams);
    ATTN_ASSERT(static_cast<index_t>(sample.targets.size()) == answers);
    *before++ = task.classes;
    before = std::copy(sample.targets.begin(), sample.targets.end() - 1, before);
    symbols = std::copy(sample.symbols.begin(), sample.symbols.end(), symbols);
    targets = std::copy(sample.targets.begin(), sample.targets.end(), targets);
    if (task.pool == Pool::chosen) {
      ATTN_ASSERT(sample.at.size() == sample.targets.size());
      at = std::copy(sample.at.begin(), sample.at.end(), at);
    } else {
      at = std::fill_n(at, answers, -1);
    }
  }
  return batch;
}

}  // namespace attn
