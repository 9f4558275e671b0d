// Recall of one thing: induction head and associative recall, as the H3 paper has them (Fu et al. 2023, arXiv:2212.14052,
// section 3.1; generator and sizes of its repository, safari: synthetics). Samples are drawn afresh and the last position alone is
// asked; the authors draw 5000 once and train on the next token everywhere, which needs causal mixers.
#include <algorithm>
#include <map>

#include "attn/train/tasks.hpp"

namespace attn {

namespace {

// Answers with what stands most often among a sequence's candidates, without looking at the question.
template <class Candidates>
Level most_frequent(const std::vector<Sample>& test, Candidates candidates) {
  double right = 0;
  for (const Sample& s : test) {
    std::map<index_t, index_t> counts;
    for (const index_t c : candidates(s)) ++counts[c];
    const auto most = std::max_element(counts.begin(), counts.end(), [](auto a, auto b) { return a.second < b.second; });
    right += most->first == s.targets[0];
  }
  return {"most_frequent", right / static_cast<double>(test.size())};
}

// Induction head: among random tokens stands a trigger; at the end it stands again, and asks for the token that followed it.
struct Induction final : Task {
  struct Options {
    index_t alphabet = 18;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("alphabet", &Options::alphabet, 2, 1 << 16, "symbols beside the trigger");
  }
  static Status supports(index_t length, const Options&) {
    if (length < 3) return refuse("two triggers and an answer need N of at least 3, given N=" + std::to_string(length));
    return {};
  }

  Options o;

  Induction(index_t, const Options& options) : o(options) {
    symbols = o.alphabet + 1;
    classes = o.alphabet;
    pool = Pool::chosen;
    control_bar = 0.97;
    // After 3000 steps full attention stands at 0.88; the authors take 62 500 of a rate of 5e-4.
    recipe = {.layer = {.width = 32, .mlp = 128}, .layers = 2, .batch = 32, .steps = 10'000, .rate = 3e-3};
  }

  Sample sample(Draws& draws, double) const override {
    Sample s;
    const index_t trigger = o.alphabet, at = draws.below(length - 2);
    for (index_t i = 0; i < length; ++i) s.symbols.push_back(draws.below(o.alphabet));
    s.symbols[static_cast<std::size_t>(at)] = s.symbols.back() = trigger;
    s.at = {length - 1};
    s.targets = {s.symbols[static_cast<std::size_t>(at + 1)]};
    return s;
  }

  std::vector<Level> levels(const std::vector<Sample>& test) const override {
    auto list = Task::levels(test);
    list.push_back(most_frequent(test, [&](const Sample& s) {
      auto plain = s.symbols;
      std::erase(plain, o.alphabet);
      return plain;
    }));
    return list;
  }
};

// Associative recall: pairs of key and value, the same value wherever a key stands again; at the end a trigger and one of the keys.
struct AssociativeRecall final : Task {
  struct Options {
    index_t keys = 9, values = 9;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("keys", &Options::keys, 1, 1 << 16, "different keys")
        .integer("values", &Options::values, 2, 1 << 16, "different values");
  }
  static Status supports(index_t length, const Options&) {
    if (length < 4 || length % 2 != 0)
      return refuse("pairs, a trigger and a key need an even N of at least 4, given N=" + std::to_string(length));
    return {};
  }

  Options o;

  AssociativeRecall(index_t, const Options& options) : o(options) {
    symbols = o.keys + o.values + 1;
    classes = o.values;
    pool = Pool::chosen;
    control_bar = 0.97;
    // After 3000 steps full attention still answers the most frequent value.
    recipe = {.layer = {.width = 32, .mlp = 128}, .layers = 2, .batch = 32, .steps = 20'000, .rate = 3e-3};
  }

  Sample sample(Draws& draws, double) const override {
    std::vector<index_t> value_of;
    for (index_t k = 0; k < o.keys; ++k) value_of.push_back(draws.below(o.values));
    Sample s;
    while (static_cast<index_t>(s.symbols.size()) < length - 2) {
      const index_t key = draws.below(o.keys);
      s.symbols.push_back(key);
      s.symbols.push_back(o.keys + value_of[static_cast<std::size_t>(key)]);
    }
    const index_t key = s.symbols[static_cast<std::size_t>(2 * draws.below((length - 2) / 2))];
    s.symbols.push_back(o.keys + o.values);
    s.symbols.push_back(key);
    s.at = {length - 1};
    s.targets = {value_of[static_cast<std::size_t>(key)]};
    return s;
  }

  std::vector<Level> levels(const std::vector<Sample>& test) const override {
    auto list = Task::levels(test);
    list.push_back(most_frequent(test, [&](const Sample& s) {
      std::vector<index_t> values;
      for (index_t i = 1; i < length - 2; i += 2) values.push_back(s.symbols[static_cast<std::size_t>(i)] - o.keys);
      return values;
    }));
    return list;
  }
};

}  // namespace

TaskType induction_task() {
  return task_type<Induction>("induction",
                              "a trigger at the end asks what followed it before: the induction head; the H3 paper has N=30");
}
TaskType associative_recall_task() {
  return task_type<AssociativeRecall>("associative_recall",
                                      "pairs of key and value, and one key at the end asks for its value; the H3 paper has N=40");
}

}  // namespace attn
