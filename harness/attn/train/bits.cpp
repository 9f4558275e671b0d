// Controls over random bits: a mean solves majority, nothing short of a state solves parity.
#include "attn/train/tasks.hpp"

namespace attn {

namespace {

struct Bits : Task {
  struct Options {};
  static OptionTable<Options> options() { return {}; }
  static Status supports(index_t length, const Options&) {
    if (length < 1) return refuse("N of at least 1 is needed, given N=" + std::to_string(length));
    return {};
  }

  Bits(double bar, index_t steps) {
    symbols = 2;
    classes = 2;
    control_bar = bar;
    recipe.steps = steps;
  }

  index_t draw(Draws& draws, std::vector<index_t>& bits) const {
    index_t ones = 0;
    bits.clear();
    for (index_t i = 0; i < length; ++i) {
      bits.push_back(draws.below(2));
      ones += bits.back();
    }
    return ones;
  }
};

// More ones than zeros? Sequences without a majority are drawn again.
struct Majority final : Bits {
  Majority(index_t, const Options&) : Bits(0.9, 600) {}
  Sample sample(Draws& draws, double) const override {
    Sample s;
    index_t ones = 0;
    do {
      ones = draw(draws, s.symbols);
    } while (2 * ones == length);
    s.targets = {2 * ones > length};
    return s;
  }
};

struct Parity final : Bits {
  Parity(index_t, const Options&) : Bits(0, 600) {}
  Sample sample(Draws& draws, double) const override {
    Sample s;
    const index_t odd = draw(draws, s.symbols) % 2;
    s.targets = {odd};
    return s;
  }
};

}  // namespace

TaskType majority_task() { return task_type<Majority>("majority", "more ones than zeros? Anything that averages passes"); }
TaskType parity_task() {
  return task_type<Parity>("parity", "is the number of ones odd? A control that attention is expected to fail");
}

}  // namespace attn
