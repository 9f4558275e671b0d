// Recall over a distance: MQAR, marker retrieval, needle, selective copying.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "attn/train/tasks.hpp"

namespace attn {

namespace {

// What a window of `reach` tokens to each side allows: answers whose source lies inside, and `guess` of the others.
Level window_level(index_t reach, const std::vector<index_t>& distances, double guess) {
  double inside = 0;
  for (const index_t distance : distances) inside += distance <= reach;
  inside /= static_cast<double>(distances.size());
  return {"window_" + std::to_string(reach), inside + (1 - inside) * guess, false};
}

// Multi-query associative recall: pairs of key and value, later every key once more, asking for its value.
//   Arora et al. 2023, arXiv:2312.04927, section 3; generator as in its authors' repository (zoology, multiquery_ar): keys and
//   values without replacement from the two halves of the vocabulary; key d is asked in slot g of those behind the pairs, slots
//   without replacement with probability ~ (g+1)^(power-1); all other tokens are blank
// packed: one token carries key and value, so that one layer can recall. interleaved: key and value in turn, as in the paper; needs
// a short convolution (recipe) or two layers.
struct Mqar final : Task {
  enum class Form { packed, interleaved };
  struct Options {
    Form form = Form::packed;
    index_t kv = 0, vocabulary = 0;
    double power = 0.01;
    bool curriculum = false;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .choice("form", &Options::form, {{"packed", Form::packed}, {"interleaved", Form::interleaved}},
                "packed: one token carries key and value; interleaved: key, value in turn")
        .integer("kv", &Options::kv, 0, 1 << 16, "pairs; 0: N/4, at most 64")
        .integer("vocabulary", &Options::vocabulary, 0, 1 << 20,
                 "keys and values together, even; 0: 128, or 4 kv where that is more")
        .number("power", &Options::power, 0, 10, "slots are asked with probability ~ (g+1)^(power-1); 1: uniform")
        .flag("curriculum", &Options::curriculum,
              "begin with 8 pairs, or 1 where no more than 8 are asked, and double them in equal parts of the first half of "
              "training");
  }
  static index_t pairs(index_t length, const Options& o) { return o.kv > 0 ? o.kv : std::clamp<index_t>(length / 4, 1, 64); }
  static index_t vocabulary(index_t length, const Options& o) {
    return o.vocabulary > 0 ? o.vocabulary : std::max<index_t>(128, 4 * pairs(length, o));
  }
  static index_t pair_tokens(const Options& o) { return o.form == Form::packed ? 1 : 2; }
  static Status supports(index_t length, const Options& o) {
    const index_t kv = pairs(length, o), needed = kv * (pair_tokens(o) + (o.form == Form::packed ? 1 : 2));
    if (length < needed)
      return refuse(std::to_string(kv) + " pairs and as many questions need N of at least " + std::to_string(needed) +
                    ", given N=" + std::to_string(length));
    if (vocabulary(length, o) % 2 != 0) return refuse("vocabulary=" + std::to_string(o.vocabulary) + " is odd");
    if (vocabulary(length, o) / 2 - 1 < kv)
      return refuse("vocabulary=" + std::to_string(vocabulary(length, o)) + " has too few keys for kv=" + std::to_string(kv) +
                    ": give " + std::to_string(2 * kv + 2) + " or more");
    return {};
  }

  Options o;
  index_t kv, half;

  Mqar(index_t n, const Options& options) : o(options), kv(pairs(n, options)), half(vocabulary(n, options) / 2) {
    length = n;
    streams = o.form == Form::packed ? 2 : 1;
    symbols = 2 * half;
    classes = half;
    pool = Pool::chosen;
    control_bar = 0.97;
    recipe.steps = 1500;
    if (o.form == Form::interleaved) {
      recipe.layers = 2;
      recipe.layer.conv = 3;
    }
  }

  index_t pairs_at(double progress) const {
    if (!o.curriculum) return kv;
    const index_t first = kv > 8 ? 8 : 1;
    index_t stages = 1;
    for (index_t count = kv; count > first; count /= 2) ++stages;
    const auto stage = static_cast<index_t>(progress * 2 * static_cast<double>(stages));
    return stage >= stages - 1 ? kv : std::min(kv, first << stage);
  }

  double full_difficulty_from() const override { return o.curriculum ? 0.5 : 0; }

  Sample sample(Draws& draws, double progress) const override {
    const index_t count = pairs_at(progress), step = o.form == Form::packed ? 1 : 2, context = count * pair_tokens(o);
    const auto keys = draws.distinct(count, half - 1, 1);
    const auto values = draws.distinct(count, half, half);
    // Weighted sampling without replacement: the `count` smallest of Exp(weight), in order (Efraimidis & Spirakis 2006).
    const index_t slots = (length - context) / step;
    std::vector<std::pair<double, index_t>> race;
    for (index_t g = 0; g < slots; ++g)
      race.emplace_back(-std::log1p(-draws.uniform()) * std::pow(static_cast<double>(g + 1), 1 - o.power), g);
    std::partial_sort(race.begin(), race.begin() + count, race.end());

    Sample s{std::vector<index_t>(static_cast<std::size_t>(length * streams), -1), {}, {}};
    const auto put = [&](index_t position, index_t stream, index_t symbol) {
      s.symbols[static_cast<std::size_t>(position * streams + stream)] = symbol;
    };
    for (index_t i = 0; i < length; ++i) put(i, 0, blank);
    for (index_t d = 0; d < count; ++d) {
      const index_t key = keys[static_cast<std::size_t>(d)], value = values[static_cast<std::size_t>(d)];
      if (o.form == Form::packed) {
        put(d, 0, key);
        put(d, 1, value);
      } else {
        put(2 * d, 0, key);
        put(2 * d + 1, 0, value);
      }
      const index_t asked = context + race[static_cast<std::size_t>(d)].second * step;
      put(asked, 0, key);
      s.at.push_back(asked);
      s.targets.push_back(value - half);
    }
    return s;
  }

  std::vector<Level> levels(const std::vector<Sample>& test) const override {
    std::vector<index_t> distances;  // from question d to the token with value d
    for (const Sample& s : test) {
      for (index_t d = 0; d < kv; ++d)
        distances.push_back(s.at[static_cast<std::size_t>(d)] - (o.form == Form::packed ? d : 2 * d + 1));
    }
    const double guess = 1 / static_cast<double>(kv);
    std::vector<Level> list{{"chance", 1 / static_cast<double>(half)}, {"some_value", guess}};
    for (index_t reach = 8; reach < length; reach *= 2) list.push_back(window_level(reach, distances, guess));
    return list;
  }

  static constexpr index_t blank = 0;
};

// Marker retrieval: the first token is the answer, the last one asks for it, between them noise. A pure test of distance.
struct Marker final : Task {
  struct Options {
    index_t markers = 10, noise = 16;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("markers", &Options::markers, 2, 1 << 16, "answers")
        .integer("noise", &Options::noise, 1, 1 << 16, "symbols of the noise");
  }
  static Status supports(index_t length, const Options&) {
    if (length < 2) return refuse("a marker and a question need N of at least 2, given N=" + std::to_string(length));
    return {};
  }

  Options o;

  Marker(index_t, const Options& options) : o(options) {
    symbols = o.markers + o.noise + 1;
    classes = o.markers;
    pool = Pool::chosen;
    control_bar = 0.97;
    recipe.steps = 600;
  }

  Sample sample(Draws& draws, double) const override {
    Sample s;
    const index_t marker = draws.below(o.markers);
    s.symbols.push_back(marker);
    for (index_t i = 1; i + 1 < length; ++i) s.symbols.push_back(o.markers + draws.below(o.noise));
    s.symbols.push_back(o.markers + o.noise);
    s.at = {length - 1};
    s.targets = {marker};
    return s;
  }
};

// A needle: one token carries a mark and a value, anywhere; the last token shows the mark and asks for the value.
struct Needle final : Task {
  struct Options {
    index_t values = 16, noise = 16;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("values", &Options::values, 2, 1 << 16, "answers")
        .integer("noise", &Options::noise, 1, 1 << 16, "symbols of the noise");
  }
  static Status supports(index_t length, const Options&) {
    if (length < 2) return refuse("a needle and a question need N of at least 2, given N=" + std::to_string(length));
    return {};
  }

  Options o;

  Needle(index_t, const Options& options) : o(options) {
    streams = 2;
    symbols = o.values + o.noise + 1;
    classes = o.values;
    pool = Pool::chosen;
    control_bar = 0.97;
    recipe.steps = 1000;
  }

  Sample sample(Draws& draws, double) const override {
    const index_t mark = o.values + o.noise, at = draws.below(length - 1), value = draws.below(o.values);
    Sample s;
    for (index_t i = 0; i < length; ++i) {
      const index_t noise = o.values + draws.below(o.noise);
      s.symbols.push_back(i == at || i + 1 == length ? mark : noise);
      s.symbols.push_back(i == at ? value : -1);
    }
    s.at = {length - 1};
    s.targets = {value};
    return s;
  }

  std::vector<Level> levels(const std::vector<Sample>& test) const override {
    std::vector<index_t> distances;
    for (const Sample& s : test) {
      const auto value =
          std::find_if(s.symbols.begin(), s.symbols.end(), [&](index_t symbol) { return 0 <= symbol && symbol < o.values; });
      distances.push_back(length - 1 - (value - s.symbols.begin()) / 2);
    }
    const double guess = 1 / static_cast<double>(o.values);
    std::vector<Level> list{{"chance", guess}};
    for (index_t reach = 8; reach < length; reach *= 2) list.push_back(window_level(reach, distances, guess));
    return list;
  }
};

// Selective copying: `memory` data symbols at random places among blanks, then as many markers, at which the data is to be repeated
// in order.
//   Gu & Dao 2023, arXiv:2312.00752, section 3.1; generator as in the S4 repository (copying, variable spacing): data uniform over
//   all symbols but blank and marker, N = L + 2 memory with L blanks
struct SelectiveCopying final : Task {
  struct Options {
    index_t memory = 8, alphabet = 16;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("memory", &Options::memory, 1, 1 << 16, "symbols to remember")
        .integer("alphabet", &Options::alphabet, 4, 1 << 16, "symbols, blank and marker included");
  }
  static Status supports(index_t length, const Options& o) {
    if (length < 2 * o.memory)
      return refuse("memory=" + std::to_string(o.memory) + " needs N of at least " + std::to_string(2 * o.memory) +
                    ", given N=" + std::to_string(length));
    return {};
  }

  Options o;

  SelectiveCopying(index_t, const Options& options) : o(options) {
    symbols = o.alphabet;
    classes = o.alphabet - 2;
    pool = Pool::chosen;
    control_bar = 0.97;
    recipe.layers = 2;
    recipe.steps = 2000;
  }

  Sample sample(Draws& draws, double) const override {
    const index_t blank = o.alphabet - 2, marker = o.alphabet - 1;
    Sample s{std::vector<index_t>(static_cast<std::size_t>(length), blank), {}, {}};
    auto places = draws.distinct(o.memory, length - o.memory);
    std::sort(places.begin(), places.end());
    for (index_t m = 0; m < o.memory; ++m) {
      const index_t symbol = draws.below(o.alphabet - 2), question = length - o.memory + m;
      s.symbols[static_cast<std::size_t>(places[static_cast<std::size_t>(m)])] = symbol;
      s.symbols[static_cast<std::size_t>(question)] = marker;
      s.at.push_back(question);
      s.targets.push_back(symbol);
    }
    return s;
  }

  std::vector<Level> levels(const std::vector<Sample>&) const override { return {{"chance", 1 / static_cast<double>(classes)}}; }
};

}  // namespace

TaskType mqar_task() {
  return task_type<Mqar>("mqar", "multi-query associative recall: pairs of key and value, then each key asks for its value");
}
TaskType marker_task() { return task_type<Marker>("marker", "the last token asks for the first: a test of distance alone"); }
TaskType needle_task() {
  return task_type<Needle>("needle", "the last token asks for the value of the one marked token, which stands anywhere");
}
TaskType selective_copying_task() {
  return task_type<SelectiveCopying>("selective_copying",
                                     "data symbols scattered among blanks, to be repeated in order at the end");
}

}  // namespace attn
