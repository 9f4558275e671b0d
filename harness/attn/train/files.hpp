// Tasks made of files: "translate:FILE,FILE,name=value". What has no '=' names a file, so a file whose name holds '=' or ',' has to be called
// something else.
#pragma once

#include <set>

#include "attn/train/tasks.hpp"
#include "attn/train/unicode.hpp"

namespace attn {

// Which characters there are. Symbol 0 is none of them.
class Alphabet {
 public:
  void add(const std::u32string& text) { points_.insert(text.begin(), text.end()); }
  index_t symbols() const { return static_cast<index_t>(points_.size()) + 1; }
  index_t symbol(char32_t c) const { return 1 + std::distance(points_.begin(), points_.find(c)); }  // c was added
  char32_t character(index_t symbol) const { return *std::next(points_.begin(), symbol - 1); }

 private:
  std::set<char32_t> points_;
};

// A task from a struct T : Task with T::Options, T::options(), T::files (their OptionDoc) and T::make(length, paths, options).
template <class T>
TaskType file_task_type(std::string id, std::string doc) {
  struct Given {
    std::vector<std::string> paths;
    typename T::Options options;
  };
  const auto read = [](std::string_view text) -> Result<Given> {
    Given given;
    std::vector<std::string> others;
    for (const std::string_view item : split(text, ',')) {
      if (item.find('=') != std::string_view::npos)
        others.emplace_back(item);
      else if (!trim(item).empty())
        given.paths.emplace_back(trim(item));
    }
    if (given.paths.empty()) return refuse("names no file; accepted: " + T::files.range);
    auto options = T::options().parse(join(others, ","));
    if (!options) return options.refusal();
    given.options = *options;
    return given;
  };
  TaskType type;
  type.id = id;
  type.doc = std::move(doc);
  type.options = T::options().docs();
  type.options.insert(type.options.begin(), T::files);
  type.check = [read](std::string_view text) -> Status {
    const auto given = read(text);
    return given ? Status() : Status(given.refusal());
  };
  type.make = [id, read](std::string_view text, index_t length) -> Result<std::unique_ptr<Task>> {
    const auto given = read(text);
    if (!given) return given.refusal();
    Result<std::unique_ptr<T>> made = T::make(length, given->paths, given->options);
    if (!made) return made.refusal();
    const OptionValues own = without_defaults(T::options().print(given->options), T::options().docs());
    (*made)->name = id + ":" + join(given->paths, ",") + (own.empty() ? "" : "," + own.text());
    (*made)->length = length;
    return std::unique_ptr<Task>(*std::move(made));
  };
  return type;
}

}  // namespace attn
