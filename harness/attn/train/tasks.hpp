// The tasks of the tree. Internal to this floor.
#pragma once

#include "attn/train/task.hpp"

namespace attn {

TaskType mqar_task();
TaskType marker_task();
TaskType needle_task();
TaskType induction_task();
TaskType associative_recall_task();
TaskType listops_task();
TaskType majority_task();
TaskType parity_task();
TaskType word_task();
TaskType selective_copying_task();
TaskType glyphs_task();
TaskType pathfinder_task();
TaskType retrieval_task();
TaskType reverse_task();
TaskType sort_task();
TaskType translate_task();
TaskType language_task();
TaskType switching_task();
TaskType captions_task();

// id:options without those that have their default.
std::string task_name(const std::string& id, const OptionValues& options, const std::vector<OptionDoc>& docs);

// A task from a struct T : Task with T::Options, T::options(), T::supports(length, options) and T(length, options).
template <class T>
TaskType task_type(std::string id, std::string doc) {
  TaskType type;
  type.id = id;
  type.doc = std::move(doc);
  type.options = T::options().docs();
  type.check = [](std::string_view text) -> Status {
    const auto options = T::options().parse(text);
    return options ? Status() : Status(options.refusal());
  };
  type.make = [id](std::string_view text, index_t length) -> Result<std::unique_ptr<Task>> {
    auto options = T::options().parse(text);
    if (!options) return options.refusal();
    if (Status status = T::supports(length, *options); !status) return status.refusal();
    auto task = std::make_unique<T>(length, *options);
    task->name = task_name(id, T::options().print(*options), T::options().docs());
    task->length = length;
    return std::unique_ptr<Task>(std::move(task));
  };
  return type;
}

}  // namespace attn
