// Two texts in one sequence: are they about the same? A generated task in the place of the Long Range Arena's retrieval of documents.
#include <algorithm>
#include <set>

#include "attn/train/tasks.hpp"

namespace attn {

namespace {

// A text is half of the sequence, and every token says which half: half of its words, drawn one by one, are words that all texts have,
// half are of its topic, a few words of the vocabulary. Two texts share their topic, or no word of it.
struct Retrieval final : Task {
  enum class Asks { texts, words };
  struct Options {
    Asks asks = Asks::texts;
    index_t vocabulary = 64, common = 4;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("asks", &Options::asks, {{"texts", Asks::texts}, {"words", Asks::words}},
                "texts: whether both are about the same; words: of each word of the second, half of which are of the first's "
                "topic, whether "
                "it stands in the first")
        .integer("vocabulary", &Options::vocabulary, 64, 1 << 16, "words that topics are made of")
        .integer("common", &Options::common, 1, 1 << 16, "words that every text has");
  }
  static Status supports(index_t length, const Options&) {
    if (length < 16 || length % 2 != 0)
      return refuse("two texts of as many words need an even N of at least 16, given N=" + std::to_string(length));
    return {};
  }

  Options o;

  Retrieval(index_t, const Options& options) : o(options) {
    symbols = o.vocabulary + o.common + 2;
    streams = 2;
    classes = 2;
    control_bar = 0.8;
    recipe.layers = 2;
    recipe.layer.heads = 2;
    recipe.steps = 3000;
    recipe.rate = 3e-3;
    if (o.asks == Asks::words) pool = Pool::chosen;
  }

  // A topic of 4, 8, 16 or 32 words: two topics have as many words together as one of twice the size, so that the variety of a pair tells
  // little and that of one text nothing.
  Sample sample(Draws& draws, double) const override {
    if (o.asks == Asks::words) return asked_by_word(draws);
    const index_t words = index_t{4} << draws.below(4);
    const bool same = draws.coin();
    const auto topics = draws.distinct(2 * words, o.vocabulary);
    Sample s;
    for (index_t i = 0; i < length; ++i) {
      const index_t text = i < length / 2 ? 0 : 1, first = same ? 0 : text * words;
      const bool common = draws.coin();
      s.symbols.push_back(common ? o.vocabulary + draws.below(o.common)
                                 : topics[static_cast<std::size_t>(first + draws.below(words))]);
      s.symbols.push_back(o.vocabulary + o.common + text);
    }
    s.targets = {same};
    return s;
  }

  // No word is common here: all of them are asked.
  Sample asked_by_word(Draws& draws) const {
    const index_t words = index_t{4} << draws.below(4), half = length / 2;
    const auto topics = draws.distinct(2 * words, o.vocabulary);
    Sample s;
    for (index_t i = 0; i < length; ++i) {
      const index_t first = i >= half && draws.coin() ? words : 0;
      s.symbols.push_back(topics[static_cast<std::size_t>(first + draws.below(words))]);
      s.symbols.push_back(o.vocabulary + o.common + (i < half ? 0 : 1));
    }
    const auto there = words_of(s, 0, half);
    for (index_t i = half; i < length; ++i) {
      s.at.push_back(i);
      s.targets.push_back(there.contains(s.symbols[static_cast<std::size_t>(i * streams)]));
    }
    return s;
  }

  // Different words of the vocabulary in tokens first .. end-1.
  std::set<index_t> words_of(const Sample& s, index_t first, index_t end) const {
    std::set<index_t> words;
    for (index_t i = first; i < end; ++i) {
      const index_t symbol = s.symbols[static_cast<std::size_t>(i * streams)];
      if (symbol < o.vocabulary) words.insert(symbol);
    }
    return words;
  }

  // variety: how many different words both texts have together, against the best bound. shared_word: whether any stands in both.
  std::vector<Level> levels(const std::vector<Sample>& test) const override {
    if (o.asks == Asks::words) return Task::levels(test);
    std::vector<double> of_variety(static_cast<std::size_t>(o.vocabulary) + 2);  // right answers, were the bound so high
    double shared = 0;
    for (const Sample& s : test) {
      const auto variety = words_of(s, 0, length).size();
      const bool same = s.targets[0] == 1;
      for (std::size_t bound = 0; bound < of_variety.size(); ++bound) of_variety[bound] += (variety < bound) == same;
      const auto first = words_of(s, 0, length / 2), second = words_of(s, length / 2, length);
      shared += std::ranges::any_of(first, [&](index_t word) { return second.contains(word); }) == same;
    }
    const auto count = static_cast<double>(test.size());
    std::vector<Level> list = Task::levels(test);
    list.push_back({"variety", *std::ranges::max_element(of_variety) / count});
    list.push_back({"shared_word", shared / count, false});
    return list;
  }
};

}  // namespace

TaskType retrieval_task() { return task_type<Retrieval>("retrieval", "two texts, N/2 words each: are they about the same?"); }

}  // namespace attn
