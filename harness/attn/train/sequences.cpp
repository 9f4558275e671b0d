// A sequence answered by a sequence: what an encoder and a decoder are for. Symbols are drawn with replacement.
#include <algorithm>

#include "attn/train/tasks.hpp"

namespace attn {

namespace {

// A recurrent encoder and decoder that the variant joins.
Recipe recurrent_recipe(index_t width, index_t steps, double rate) {
  return {.layer = {.width = width, .mlp = 0}, .body = Body::recurrent, .steps = steps, .rate = rate};
}

enum class Order { reversed, sorted };

template <Order order>
struct Rearranged final : Task {
  struct Options {
    index_t alphabet = 10;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>().integer("alphabet", &Options::alphabet, 2, 1 << 16, "different symbols");
  }
  static Status supports(index_t length, const Options&) {
    if (length < 2) return refuse("N of at least 2 is needed, given N=" + std::to_string(length));
    return {};
  }

  Rearranged(index_t n, const Options& o) {
    answers = n;
    symbols = classes = o.alphabet;
    pool = Pool::decoded;
    control_bar = 0.9;
    recipe = recurrent_recipe(64, 2000, 3e-3);
  }

  Sample sample(Draws& draws, double) const override {
    Sample s;
    for (index_t i = 0; i < length; ++i) s.symbols.push_back(draws.below(symbols));
    s.targets = s.symbols;
    if (order == Order::reversed)
      std::ranges::reverse(s.targets);
    else
      std::ranges::sort(s.targets);
    return s;
  }
};

}  // namespace

TaskType reverse_task() {
  return task_type<Rearranged<Order::reversed>>(
      "reverse", "the sequence backwards, answered symbol by symbol; right as a whole or not at all");
}
TaskType sort_task() {
  return task_type<Rearranged<Order::sorted>>(
      "sort", "the sequence in ascending order, answered symbol by symbol; right as a whole or not at all");
}

}  // namespace attn
