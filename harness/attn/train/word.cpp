// State tracking: the word problem of a group of permutations. What sums over tokens without regard to their order cannot do it but in the
// groups that commute; a state whose step has no negative eigenvalues cannot do even s2, which is parity.
#include <algorithm>
#include <functional>
#include <numeric>

#include "attn/train/tasks.hpp"

namespace attn {

namespace {

using Permutation = std::vector<index_t>;

bool is_even(const Permutation& p) {
  bool even = true;
  for (std::size_t i = 0; i < p.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) even ^= p[j] > p[i];
  return even;
}

// Each token is a permutation, and at each token the product of all so far is asked: token t after those before it.
struct Word final : Task {
  enum class Group { s2, s3, s4, s5, a4, a5 };
  enum class Moves { all, swaps };
  struct Options {
    Group group = Group::s3;
    Moves moves = Moves::all;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("group", &Options::group,
                {{"s2", Group::s2}, {"s3", Group::s3}, {"s4", Group::s4}, {"s5", Group::s5}, {"a4", Group::a4}, {"a5", Group::a5}},
                "all permutations of so many things, or the even ones; s2: parity")
        .choice("moves", &Options::moves, {{"all", Moves::all}, {"swaps", Moves::swaps}},
                "tokens: all permutations of the group; swaps: those that exchange two things, or nothing");
  }
  static bool even_only(Group group) { return group == Group::a4 || group == Group::a5; }
  static Status supports(index_t length, const Options& o) {
    if (length < 1) return refuse("N of at least 1 is needed, given N=" + std::to_string(length));
    if (o.moves == Moves::swaps && even_only(o.group)) return refuse("a group of even permutations has no swaps: give moves=all");
    return {};
  }

  std::vector<Permutation> elements;          // in lexicographic order: the identity comes first
  std::vector<index_t> moves;                 // elements that tokens are
  std::vector<std::vector<index_t>> product;  // [after][before]

  Word(index_t, const Options& o) {
    make_group(o);
    symbols = std::ssize(moves);
    classes = std::ssize(elements);
    pool = Pool::chosen;
    recipe = {.layer = {.positions = Positions::none, .causal = true}, .steps = 3000};
  }

  Sample sample(Draws& draws, double) const override {
    Sample s;
    index_t state = 0;
    for (index_t t = 0; t < length; ++t) {
      const index_t symbol = draws.below(symbols);
      state = product[static_cast<std::size_t>(moves[static_cast<std::size_t>(symbol)])][static_cast<std::size_t>(state)];
      s.symbols.push_back(symbol);
      s.at.push_back(t);
      s.targets.push_back(state);
    }
    return s;
  }

  // And what knows the first tokens' products alone.
  std::vector<Level> levels(const std::vector<Sample>& test) const override {
    auto list = Task::levels(test);
    const double guess = list.front().accuracy;
    for (index_t first = 4; first < length; first *= 4) {
      const double share = static_cast<double>(first) / static_cast<double>(length);
      list.push_back({"first_" + std::to_string(first), share + (1 - share) * guess, false});
    }
    return list;
  }

 private:
  void make_group(const Options& o) {
    Permutation p(o.group == Group::s2 ? 2 : o.group == Group::s3 ? 3 : o.group == Group::s4 || o.group == Group::a4 ? 4 : 5);
    std::iota(p.begin(), p.end(), 0);
    const Permutation identity = p;
    do {
      if (even_only(o.group) && !is_even(p)) continue;
      const auto moved = std::inner_product(p.begin(), p.end(), identity.begin(), index_t{0}, std::plus<>(), std::not_equal_to<>());
      if (o.moves == Moves::all || moved <= 2) moves.push_back(std::ssize(elements));
      elements.push_back(p);
    } while (std::next_permutation(p.begin(), p.end()));
    for (const Permutation& after : elements) {
      auto& row = product.emplace_back();
      for (const Permutation& before : elements) {
        Permutation both;
        for (const index_t to : before) both.push_back(after[static_cast<std::size_t>(to)]);
        row.push_back(std::lower_bound(elements.begin(), elements.end(), both) - elements.begin());
      }
    }
  }
};

}  // namespace

TaskType word_task() {
  return task_type<Word>("word", "the product of all permutations so far, asked at every token: state tracking");
}

}  // namespace attn
