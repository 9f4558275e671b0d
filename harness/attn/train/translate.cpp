// Texts and what they become, character by character: pairs of a file, a fifth of them held out.
#include <algorithm>

#include "attn/train/files.hpp"
#include "attn/train/pairs.hpp"

namespace attn {

namespace {

struct Translate final : Task {
  struct Options {};
  static OptionTable<Options> options() { return {}; }
  static inline const OptionDoc files{"FILE", "path", "FILE.tsv|FILE.mo", "", "tab-separated pairs, or a gettext catalogue; UTF-8"};

  // Numbers of characters; a source stands at the end of its row, so that what a recurrent encoder read last is text.
  struct Pair {
    std::vector<index_t> source, target;
  };
  std::vector<Pair> known, held;
  Alphabet read, written;  // class 0 is the end

  // Pairs that do not fit are left out: sources of more than N characters, and targets of more than N - 1, for there is an end behind them.
  static Result<std::unique_ptr<Translate>> make(index_t length, const std::vector<std::string>& paths, const Options&) {
    if (paths.size() != 1) return refuse("takes one file of pairs, given " + join(paths, " and "));
    auto pairs = read_pairs(paths.front());
    if (!pairs) return pairs.refusal();
    auto task = std::make_unique<Translate>();
    std::vector<std::pair<std::u32string, std::u32string>> fitting;
    std::vector<std::string> sources;
    std::size_t longest = 0;
    for (const TextPair& pair : *pairs) {
      const std::u32string from = *code_points(pair.from), to = *code_points(pair.to);
      longest = std::max({longest, from.size(), to.size() + 1});
      if (static_cast<index_t>(std::max(from.size(), to.size() + 1)) > length) continue;
      task->read.add(from);
      task->written.add(to);
      fitting.emplace_back(from, to);
      sources.push_back(pair.from);
    }
    if (fitting.size() < 2)
      return refuse("of " + counted(pairs->size(), "pair") + " in '" + paths.front() + "', " + std::to_string(fitting.size()) +
                    " fit N=" + std::to_string(length) +
                    ", and one to learn from and one to be tested with are needed; the longest needs N=" + std::to_string(longest));
    const auto hidden = held_out(sources);
    for (std::size_t i = 0; i < fitting.size(); ++i) {
      const auto& [from, to] = fitting[i];
      Pair pair{std::vector<index_t>(static_cast<std::size_t>(length) - from.size(), 0), {}};
      for (const char32_t c : from) pair.source.push_back(task->read.symbol(c));
      for (const char32_t c : to) pair.target.push_back(task->written.symbol(c));
      pair.target.push_back(0);
      pair.target.resize(static_cast<std::size_t>(length), -1);
      (hidden[i] ? task->held : task->known).push_back(std::move(pair));
    }
    task->symbols = task->read.symbols();
    task->classes = task->written.symbols();
    task->answers = length;
    task->end_class = 0;
    task->test_size = static_cast<index_t>(task->held.size());
    task->pool = Pool::decoded;
    task->recipe = {.layer = {.width = 128, .mlp = 0}, .body = Body::recurrent, .steps = 3000, .rate = 2e-3};
    return task;
  }

  Sample sample(Draws& draws, double) const override { return of(known[static_cast<std::size_t>(draws.below(count(known)))]); }
  Sample test_sample(Draws&, index_t index, double) const override { return of(held[static_cast<std::size_t>(index)]); }

  std::optional<std::string> spelled(std::span<const index_t> told) const override {
    std::u32string text;
    for (const index_t answer : told) {
      if (answer <= 0) break;
      text += written.character(answer);
    }
    return to_utf8(text);
  }

  // Many a name is the same on both sides.
  std::vector<Level> levels(const std::vector<Sample>& test) const override {
    std::vector<Level> list = Task::levels(test);
    double same = 0;
    for (const Sample& s : test) {
      std::u32string source;
      for (const index_t symbol : s.symbols) {
        if (symbol > 0) source += read.character(symbol);
      }
      same += to_utf8(source) == *spelled(s.targets);
    }
    list.push_back({"copied", same / static_cast<double>(test.size())});
    return list;
  }

 private:
  static index_t count(const std::vector<Pair>& pairs) { return static_cast<index_t>(pairs.size()); }
  static Sample of(const Pair& pair) { return {pair.source, {}, pair.target}; }
};

}  // namespace

TaskType translate_task() {
  return file_task_type<Translate>("translate",
                                   "pairs of texts from a file, character by character, tested on a fifth that is held out");
}

}  // namespace attn
