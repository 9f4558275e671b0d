#include <array>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "attn/train/listops.hpp"
#include "attn/train/pathfinder.hpp"
#include "attn/train/task.hpp"
#include "catch.hpp"
#include "harness/train/text_file.hpp"

using namespace attn;
using namespace attn::test;

namespace {

std::unique_ptr<Task> task_of(const std::string& name, index_t length) {
  auto task = make_task(name, length);
  INFO((task ? "" : task.reason()));
  REQUIRE(task);
  return *std::move(task);
}

std::vector<Sample> some(const Task& task, index_t count, double progress = 1) {
  return samples(task, Split::test, 1, 0, count, progress);
}

double level(const std::vector<Level>& levels, const std::string& name) {
  for (const auto& l : levels) {
    if (l.name == name) return l.accuracy;
  }
  FAIL("no level " << name);
  return 0;
}

std::string refusal(const std::string& name, index_t length) {
  const auto task = make_task(name, length);
  return task ? "" : task.reason();
}

std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

}  // namespace

TEST_CASE("A sample is the same whatever was generated before it, and another one elsewhere", "[train]") {
  const TextFile texts("samples.tsv", "one\tun\ntwo\tdeux\nthree\ttrois\nfour\tun\nfive\tdeux\nsix\ttrois\nseven\tun\n");
  for (const TaskType& type : task_types()) {
    const bool of_file = type.options.size() > 0 && type.options.front().name == "FILE";
    const auto task = task_of(type.id + (of_file ? ":" + texts.path() : ""), 256);
    INFO(type.id);
    const auto ten = samples(*task, Split::train, 1, 0, 10);
    CHECK(samples(*task, Split::train, 1, 7, 1)[0].symbols == ten[7].symbols);
    if (!of_file) CHECK(ten[0].symbols != ten[1].symbols);
    CHECK(samples(*task, Split::test, 1, 0, 1)[0].symbols != ten[0].symbols);
    if (!of_file) CHECK(samples(*task, Split::train, 2, 0, 1)[0].symbols != ten[0].symbols);
    const Batch batch = to_batch(*task, ten);
    for (const index_t symbol : batch.tokens.symbols.values()) REQUIRE((-1 <= symbol && symbol < task->symbols));
    const index_t least = task->pool == Pool::decoded ? -1 : 0;
    for (const index_t target : batch.targets.values()) REQUIRE((least <= target && target < task->classes));
    const auto levels = task->levels(some(*task, task->test_size > 0 ? task->test_size : 200));
    CHECK(levels.front().floor);
    for (const auto& l : levels) CHECK(((l.accuracy > 0 || l.name == "copied") && l.accuracy <= 1));
  }
}

TEST_CASE("Every question of packed MQAR has its key and value among the pairs", "[train]") {
  const auto task = task_of("mqar:kv=8", 64);
  for (const Sample& s : some(*task, 50)) {
    std::map<index_t, index_t> value_of;
    for (index_t i = 0; i < 8; ++i) value_of[s.symbols[at(2 * i)]] = s.symbols[at(2 * i + 1)];
    REQUIRE(value_of.size() == 8);
    std::set<index_t> asked;
    for (std::size_t d = 0; d < 8; ++d) {
      CHECK(s.at[d] >= 8);
      const index_t key = s.symbols[at(2 * s.at[d])];
      CHECK(s.symbols[at(2 * s.at[d] + 1)] == -1);
      CHECK(value_of.at(key) == s.targets[d] + 64);
      asked.insert(key);
    }
    CHECK(asked.size() == 8);
  }
}

TEST_CASE("Interleaved MQAR asks at even places behind its pairs", "[train]") {
  const auto task = task_of("mqar:form=interleaved,kv=4", 32);
  for (const Sample& s : some(*task, 50)) {
    std::map<index_t, index_t> value_of;
    for (index_t i = 0; i < 4; ++i) value_of[s.symbols[at(2 * i)]] = s.symbols[at(2 * i + 1)];
    for (std::size_t d = 0; d < 4; ++d) {
      CHECK((s.at[d] >= 8 && s.at[d] % 2 == 0));
      CHECK(value_of.at(s.symbols[at(s.at[d])]) == s.targets[d] + 64);
    }
  }
}

TEST_CASE("MQAR's slots are those of its paper: a window of 16 sees 59 % of the sources at N=64 and 8 pairs", "[train]") {
  const auto task = task_of("mqar:kv=8", 64);
  const auto levels = task->levels(some(*task, 2048));
  CHECK(level(levels, "some_value") == 0.125);
  CHECK(level(levels, "window_16") == Approx(0.593 + (1 - 0.593) / 8).margin(0.01));
}

TEST_CASE("The curriculum of MQAR begins with 8 pairs, or with 1 of no more than 8, and has all of them from the middle on",
          "[train]") {
  for (const auto& [kv, n, factor] : {std::tuple{"64", 256, 8}, std::tuple{"8", 64, 1}}) {
    const auto task = task_of("mqar:curriculum=yes,kv=" + std::string(kv), n);
    const auto pairs = [&, factor = factor](double progress) {
      return static_cast<int>(some(*task, 1, progress)[0].targets.size()) / factor;
    };
    CHECK(pairs(0) == 1);
    CHECK(pairs(0.2) == 2);
    CHECK(pairs(0.3) == 4);
    CHECK(pairs(0.5) == 8);
    CHECK(pairs(1) == 8);
  }
}

TEST_CASE("A marker stands first and is asked for last; a needle stands anywhere", "[train]") {
  const auto marker = task_of("marker", 40);
  for (const Sample& s : some(*marker, 20)) {
    CHECK(s.symbols[0] == s.targets[0]);
    CHECK(s.at == std::vector<index_t>{39});
    for (std::size_t i = 1; i < 39; ++i) CHECK(s.symbols[i] >= 10);
  }
  const auto needle = task_of("needle", 40);
  double mean = 0;
  for (const Sample& s : some(*needle, 500)) {
    index_t places = 0;
    for (index_t i = 0; i < 40; ++i) {
      if (s.symbols[at(2 * i + 1)] < 0) continue;
      ++places;
      CHECK(s.symbols[at(2 * i + 1)] == s.targets[0]);
      CHECK(s.symbols[at(2 * i)] == s.symbols[at(2 * 39)]);
      mean += static_cast<double>(i) / 500;
    }
    CHECK(places == 1);
  }
  CHECK(mean == Approx(19).margin(2));
  CHECK(level(needle->levels(some(*needle, 2000)), "window_8") == Approx(8.0 / 39 + 31.0 / 39 / 16).margin(0.03));
}

TEST_CASE("Majority and parity are what they say, and balanced", "[train]") {
  for (const char* name : {"majority", "parity"}) {
    const auto task = task_of(name, 30);
    double ones = 0;
    for (const Sample& s : some(*task, 1000)) {
      const auto sum = std::count(s.symbols.begin(), s.symbols.end(), 1);
      CHECK(s.targets[0] == (std::string(name) == "parity" ? sum % 2 : sum > 15));
      CHECK((std::string(name) == "parity" || sum != 15));
      ones += static_cast<double>(s.targets[0]) / 1000;
    }
    CHECK(ones == Approx(0.5).margin(0.05));
  }
}

TEST_CASE("A word's products are those of its permutations: of two things parity, of swaps at most one exchange a token",
          "[train]") {
  for (const auto& [name, moves, elements] :
       {std::tuple{"word:group=s2", 2, 2}, std::tuple{"word", 6, 6}, std::tuple{"word:moves=swaps", 4, 6},
        std::tuple{"word:group=a4", 12, 12}, std::tuple{"word:group=a5", 60, 60},
        std::tuple{"word:group=s5,moves=swaps", 11, 120}}) {
    const auto task = task_of(name, 40);
    INFO(name);
    CHECK((task->symbols == moves && task->classes == elements));
    for (const Sample& s : some(*task, 20)) REQUIRE((std::ssize(s.targets) == 40 && s.at[39] == 39));
  }
  for (const Sample& s : some(*task_of("word:group=s2", 30), 50)) {
    index_t ones = 0;
    for (std::size_t t = 0; t < 30; ++t) {
      ones += s.symbols[t];
      CHECK(s.targets[t] == ones % 2);
    }
  }
  // Lexicographic: 012 021 102 120 201 210. First 021, then 102: 0 -> 0 -> 1, 1 -> 2 -> 2, 2 -> 1 -> 0.
  bool met = false;
  for (const Sample& s : some(*task_of("word", 2), 500)) {
    CHECK(s.targets[0] == s.symbols[0]);
    if (s.symbols[0] != 1 || s.symbols[1] != 2) continue;
    met = true;
    CHECK(s.targets[1] == 3);
  }
  CHECK(met);
  CHECK(level(task_of("word", 64)->levels(some(*task_of("word", 64), 500)), "first_16") == Approx(0.25 + 0.75 / 6).margin(0.01));
}

TEST_CASE("Selective copying asks for the data in its order", "[train]") {
  const auto task = task_of("selective_copying:memory=5", 30);
  for (const Sample& s : some(*task, 50)) {
    std::vector<index_t> data;
    for (index_t i = 0; i < 25; ++i) {
      if (s.symbols[at(i)] < 14) data.push_back(s.symbols[at(i)]);
    }
    CHECK(data == s.targets);
    CHECK(s.at == std::vector<index_t>{25, 26, 27, 28, 29});
    CHECK(s.symbols[25] == 15);
  }
}

TEST_CASE("An induction head is asked for what followed the trigger", "[train]") {
  const auto task = task_of("induction", 30);
  std::set<index_t> places;
  for (const Sample& s : some(*task, 500)) {
    const auto trigger = std::find(s.symbols.begin(), s.symbols.end(), 18);
    CHECK(std::count(s.symbols.begin(), s.symbols.end(), 18) == 2);
    CHECK(s.symbols[29] == 18);
    CHECK(s.targets[0] == *(trigger + 1));
    places.insert(trigger - s.symbols.begin());
  }
  CHECK((places.size() == 28 && *places.begin() == 0 && *places.rbegin() == 27));
  CHECK(level(task->levels(some(*task, 4000)), "constant") == Approx(1.0 / 18).margin(0.02));
}

TEST_CASE("Associative recall asks for a key of the context, whose value is the same everywhere", "[train]") {
  const auto task = task_of("associative_recall", 40);
  for (const Sample& s : some(*task, 200)) {
    std::map<index_t, index_t> value_of;
    for (std::size_t i = 0; i < 38; i += 2) {
      CHECK((s.symbols[i] < 9 && 9 <= s.symbols[i + 1] && s.symbols[i + 1] < 18));
      CHECK(value_of.emplace(s.symbols[i], s.symbols[i + 1]).first->second == s.symbols[i + 1]);
    }
    CHECK(s.symbols[38] == 18);
    REQUIRE(value_of.count(s.symbols[39]) == 1);
    CHECK(value_of[s.symbols[39]] == 9 + s.targets[0]);
  }
  const auto levels = task->levels(some(*task, 2000));
  CHECK(level(levels, "constant") == Approx(1.0 / 9).margin(0.03));
  // Of 9 keys some share a value, and 19 pairs repeat some keys: the most frequent value is right in three of ten.
  CHECK(level(levels, "most_frequent") == Approx(0.32).margin(0.06));
}

TEST_CASE("ListOps has the values that one computes by hand", "[train]") {
  constexpr index_t min = 11, max = 12, med = 13, sum = 14, close = 15;
  const auto digit = [](index_t d) { return d + 1; };
  CHECK(listops::value(std::vector{min, digit(4), digit(2), digit(9), close}) == 2);
  CHECK(listops::value(std::vector{max, digit(4), digit(2), close}) == 4);
  CHECK(listops::value(std::vector{med, digit(1), digit(9), digit(5), close}) == 5);
  CHECK(listops::value(std::vector{med, digit(1), digit(4), digit(9), digit(2), close}) == 3);
  CHECK(listops::value(std::vector{med, digit(2), digit(5), close}) == 3);
  CHECK(listops::value(std::vector{sum, digit(7), digit(8), close}) == 5);
  const std::vector nested{max, digit(2), min, digit(8), digit(6), close, digit(0), close};
  CHECK(listops::value(nested) == 6);
  // To depth 1 the inner MIN counts as its modal value, given as 3.
  CHECK(listops::value(nested, 1, {3, 0, 0, 0}) == 3);
  CHECK(listops::value(nested, 2, {3, 0, 0, 0}) == 6);
}

TEST_CASE("ListOps at N=2000 has the arena's lengths, and its floors lie where simulation puts them", "[train]") {
  const auto task = task_of("listops", 2000);
  const auto list = some(*task, 1000);
  double tokens = 0;
  for (const Sample& s : list) {
    const auto length =
        std::count_if(s.symbols.begin() + 1, s.symbols.end(), [](index_t symbol) { return symbol != listops::pad; });
    CHECK((500 < length && length < 2000));
    tokens += static_cast<double>(length) / 1000;
  }
  CHECK(tokens == Approx(1032).margin(50));  // standard error of 1000 samples: 13
  const auto levels = task->levels(list);
  CHECK(level(levels, "constant") == Approx(0.174).margin(0.035));
  CHECK(level(levels, "root_operator") == Approx(0.366).margin(0.045));
  CHECK(level(levels, "depth_1") == Approx(0.593).margin(0.045));
  CHECK(level(levels, "depth_2") == Approx(0.739).margin(0.045));
  CHECK(level(levels, "depth_3") == Approx(0.832).margin(0.045));
}

TEST_CASE("Short ListOps keep the ladder", "[train]") {
  const auto task = task_of("listops", 128);
  const auto levels = task->levels(some(*task, 2048));
  CHECK(level(levels, "constant") == Approx(0.168).margin(0.025));
  CHECK(level(levels, "root_operator") == Approx(0.353).margin(0.032));
  CHECK(level(levels, "depth_1") == Approx(0.605).margin(0.032));
  CHECK(level(levels, "depth_2") == Approx(0.773).margin(0.032));
}

TEST_CASE("Capped ListOps tells little by its root operator", "[train]") {
  const auto task = task_of("listops:roots=capped", 128);
  const auto list = some(*task, 4096);
  std::array<double, 4> roots{};
  for (const Sample& s : list) roots[at(s.symbols[1] - listops::first_operator)] += 1.0 / 4096;
  for (const double share : roots) CHECK(share == Approx(0.25).margin(0.03));
  const auto levels = task->levels(list);
  CHECK(level(levels, "root_operator") == Approx(0.19).margin(0.03));
  CHECK(level(levels, "constant") < 0.16);
}

TEST_CASE("Glyphs can be told apart by their mean pictures better than by chance, and not perfectly", "[train]") {
  const auto task = task_of("glyphs", 256);
  std::vector<std::vector<double>> means(10, std::vector<double>(256, 0.0));
  std::vector<double> counts(10, 0.0);
  for (const Sample& s : samples(*task, Split::train, 1, 0, 1000)) {
    counts[at(s.targets[0])] += 1;
    for (std::size_t i = 0; i < 256; ++i) means[at(s.targets[0])][i] += static_cast<double>(s.symbols[i]);
  }
  double right = 0;
  for (const Sample& s : some(*task, 500)) {
    std::size_t nearest = 0;
    double least = 1e300;
    for (std::size_t c = 0; c < 10; ++c) {
      CHECK(counts[c] > 50);
      double distance = 0;
      for (std::size_t i = 0; i < 256; ++i) distance += std::pow(static_cast<double>(s.symbols[i]) - means[c][i] / counts[c], 2);
      if (distance < least) least = distance, nearest = c;
    }
    right += static_cast<index_t>(nearest) == s.targets[0];
  }
  CHECK(right / 500 > 0.2);
  CHECK(right / 500 < 0.9);
}

TEST_CASE("Pathfinder's pictures are balanced, and their curves fill the share of pixels that their lengths ask for", "[train]") {
  for (const index_t side : {16, 32}) {
    const auto settings = pathfinder::settings(side, side == 32 ? 14 : 6);
    double joined = 0, lit = 0, attempts = 0;
    constexpr index_t count = 150;
    for (index_t i = 0; i < count; ++i) {
      Draws draws(Rng(1, "pathfinder test").substream(static_cast<std::uint64_t>(i)));
      const auto picture = pathfinder::draw(draws, settings);
      joined += picture.joined;
      attempts += static_cast<double>(picture.attempts);
      for (const double pixel : picture.image.pixels()) lit += pixel > 0.3;
    }
    INFO("side " << side);
    CHECK(joined / count == Approx(0.5).margin(0.12));  // three standard errors
    // A dash of length 2 lights about 3 pixels, a marker 9: dashes * 3 + 18 pixels of the picture, less where they overlap.
    const double dashes = static_cast<double>(2 * settings.dashes + settings.distractors * settings.distractor_dashes);
    CHECK(lit / count == Approx(3 * dashes + 18).epsilon(0.3));
    CHECK(attempts / count < (side == 32 ? 40 : 80));
  }
}

TEST_CASE("What no sequence fits is refused in a sentence", "[train]") {
  CHECK(refusal("mqar:kv=40", 64) == "mqar: 40 pairs and as many questions need N of at least 80, given N=64");
  CHECK(refusal("mqar:kv=8,vocabulary=16", 64).find("too few keys") != std::string::npos);
  CHECK(refusal("mqar:vocabulary=129", 64) == "mqar: vocabulary=129 is odd");
  CHECK(refusal("glyphs", 500).find("the square of a side of at least 12") != std::string::npos);
  CHECK(refusal("pathfinder", 512) == "pathfinder: pictures have 16x16 or 32x32 pixels: N=256 or N=1024, given N=512");
  CHECK(refusal("listops:above=600", 500).find("no tree is longer than 600 and fits") != std::string::npos);
  CHECK(refusal("listops:depth=2", 128).find("no tree of depth 2") != std::string::npos);
  CHECK(refusal("selective_copying:memory=20", 32).find("needs N of at least 40") != std::string::npos);
  CHECK(refusal("word:group=a5,moves=swaps", 32) == "word: a group of even permutations has no swaps: give moves=all");
  CHECK(refusal("marker", 1).find("given N=1") != std::string::npos);
  CHECK(refusal("induction", 2).find("need N of at least 3") != std::string::npos);
  CHECK(refusal("associative_recall", 31).find("an even N of at least 4, given N=31") != std::string::npos);
  CHECK(check_task("lisops").reason().find("did you mean 'listops'?") != std::string::npos);
  CHECK(check_task("mqar:kw=8").reason().find("did you mean 'kv'?") != std::string::npos);
}

TEST_CASE("A task is named by the options that differ from the default", "[train]") {
  CHECK(task_of("mqar", 64)->name == "mqar");
  CHECK(task_of("mqar:kv=8,power=0.01,curriculum=no", 64)->name == "mqar:kv=8");
}

TEST_CASE("Two texts share their topic or no word of it, and counting words tells little of that", "[train]") {
  const auto task = task_of("retrieval", 128);
  const auto test = some(*task, 2048);
  double same = 0;
  for (const Sample& s : test) {
    std::array<std::set<index_t>, 2> words;
    for (index_t i = 0; i < 128; ++i) {
      const index_t text = i < 64 ? 0 : 1;
      REQUIRE(s.symbols[at(2 * i + 1)] == 64 + 4 + text);
      if (s.symbols[at(2 * i)] < 64) words[at(text)].insert(s.symbols[at(2 * i)]);
    }
    index_t shared = 0;
    for (const index_t word : words[0]) shared += words[1].contains(word);
    CHECK((shared > 0) == (s.targets[0] == 1));
    same += static_cast<double>(s.targets[0]);
  }
  CHECK(same / 2048 == Approx(0.5).margin(0.03));
  const auto levels = task->levels(test);
  CHECK(level(levels, "shared_word") == 1);
  const double variety = level(levels, "variety");
  CHECK((variety > 0.55 && variety < 0.75));
  CHECK(refusal("retrieval", 17).find("an even N of at least 16, given N=17") != std::string::npos);
}

TEST_CASE("Asked by word, a text of two has half of its words from the other's topic, and each is right that stands there", "[train]") {
  const auto task = task_of("retrieval:asks=words", 128);
  double there = 0;
  for (const Sample& s : some(*task, 200)) {
    std::set<index_t> first;
    for (index_t i = 0; i < 64; ++i) first.insert(s.symbols[at(2 * i)]);
    REQUIRE(s.at.size() == 64);
    for (index_t i = 0; i < 64; ++i) {
      CHECK(s.at[at(i)] == 64 + i);
      CHECK(first.contains(s.symbols[at(2 * s.at[at(i)])]) == (s.targets[at(i)] == 1));
      there += static_cast<double>(s.targets[at(i)]);
    }
  }
  CHECK(there / 200 / 64 == Approx(0.48).margin(0.04));  // a topic of 32 words is not seen whole in 64
}
