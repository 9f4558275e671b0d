#include <algorithm>
#include <set>

#include "attn/train/chrf.hpp"
#include "attn/train/pairs.hpp"
#include "attn/train/training.hpp"
#include "attn/train/unicode.hpp"
#include "catch.hpp"
#include "harness/train/text_file.hpp"
#include "harness/variant_of.hpp"

using namespace attn;
using namespace attn::test;

namespace {

using Entries = std::vector<std::pair<std::string, std::string>>;

std::string no_pairs(const std::string& bytes) {
  const auto pairs = parse_pairs(bytes, "x");
  return pairs ? "" : pairs.reason();
}

Entries pairs_of(const std::string& bytes) {
  const auto pairs = parse_pairs(bytes, "x");
  INFO((pairs ? "" : pairs.reason()));
  REQUIRE(pairs);
  Entries list;
  for (const TextPair& pair : *pairs) list.emplace_back(pair.from, pair.to);
  return list;
}

std::unique_ptr<Task> task_of(const std::string& name, index_t length) {
  auto task = make_task(name, length);
  INFO((task ? "" : task.reason()));
  REQUIRE(task);
  return *std::move(task);
}

std::string refusal(const std::string& name, index_t length) {
  const auto task = make_task(name, length);
  return task ? "" : task.reason();
}

double chrf(const std::string& given, const std::string& wanted) {
  Chrf score;
  score.add(given, wanted);
  return score.score();
}

}  // namespace

TEST_CASE("Pairs are the first two fields of lines, whatever their ends, and the first of a source that stands twice", "[train]") {
  CHECK(pairs_of("\xef\xbb\xbfone\tun\r\n\ntwo\tdeux\tmore\n one \tune\nthree\t trois ") ==
        Entries{{"one", "un"}, {"two", "deux"}, {"three", "trois"}});
}

TEST_CASE("A catalogue's pairs are its messages with a translation, in either byte order", "[train]") {
  for (const bool big_endian : {false, true}) {
    CHECK(pairs_of(catalogue({{"", header("UTF-8")},
                              {"Chad", "Tchad"},
                              {"river\4Niger", "Niger"},
                              {std::string("%d day\0%d days", 14), std::string("%d jour\0%d jours", 16)},
                              {"Spain", ""},
                              {"Sweden",
                               "Su\xc3\xa8"
                               "de"}},
                             big_endian)) == Entries{{"Chad", "Tchad"},
                                                     {"Niger", "Niger"},
                                                     {"%d day", "%d jour"},
                                                     {"Sweden",
                                                      "Su\xc3\xa8"
                                                      "de"}});
  }
}

TEST_CASE("A file that holds no pairs of UTF-8 is refused in a sentence", "[train]") {
  CHECK(no_pairs("") == "'x' holds no pair of texts");
  CHECK(no_pairs("a\tb\nno tab here\n") == "line 2 of 'x' has no tab; accepted: a text, a tab, and what it becomes");
  CHECK(no_pairs("a\tb\nc\t\n") == "line 2 of 'x' has nothing behind its tab");
  CHECK(no_pairs(" \td\n") == "line 1 of 'x' has nothing before its tab");
  CHECK(no_pairs("Su\xe8"
                 "de\tb\n") == "line 1 of 'x' is not UTF-8; accepted: UTF-8, as iconv -t UTF-8 makes it");
  CHECK(no_pairs(catalogue({{"", header("ISO-8859-1")}, {"a", "\xe8"}})) ==
        "'x' is encoded in ISO-8859-1; accepted: UTF-8, as msgconv -t UTF-8 makes it");
  CHECK(no_pairs(catalogue({{"", header("utf-8")}, {"a", "\xe8"}})) == "message 2 of 'x' is not UTF-8; accepted: UTF-8");
  CHECK(no_pairs(catalogue({{"", header("UTF-8")}, {"a", ""}})) == "'x' holds no pair of texts");
  const std::string whole = catalogue({{"", header("UTF-8")}, {"a", "b"}});
  for (std::size_t bytes = 4; bytes < whole.size() - 1; ++bytes)
    CHECK(no_pairs(whole.substr(0, bytes)) == "'x' is a catalogue that is cut short");
}

TEST_CASE("A fifth of the texts is held out, and the same one of a longer list", "[train]") {
  std::vector<std::string> texts;
  for (int i = 0; i < 50; ++i) texts.push_back("text " + std::to_string(i));
  const auto held = held_out(texts);
  CHECK(std::ranges::count(held, true) == 10);
  std::reverse(texts.begin(), texts.end());
  auto turned = held_out(texts);
  std::reverse(turned.begin(), turned.end());
  CHECK(turned == held);
  CHECK(held_out({"a"}) == std::vector<bool>{false});
  CHECK(std::ranges::count(held_out({"a", "b"}), true) == 1);
}

TEST_CASE("A translation is asked for with its end, and tested on pairs that training never shows", "[train]") {
  std::string lines;
  for (const char* word : {"ab", "cde", "f", "gh", "ijk", "lm", "nop", "q", "rs", "tuv"})
    lines += std::string(word) + "\t" + word + "!\n";
  const TextFile file("words.tsv", lines);
  const auto task = task_of("translate:" + file.path(), 5);
  CHECK(task->name == "translate:" + file.path());
  REQUIRE(task->test_size == 2);
  CHECK(task->symbols == 1 + 22);
  CHECK(task->classes == 1 + 23);
  std::set<std::string> shown, held;
  for (const Sample& s : samples(*task, Split::train, 1, 0, 300)) shown.insert(*task->spelled(s.targets));
  for (const Sample& s : samples(*task, Split::test, 1, 0, 2)) {
    held.insert(*task->spelled(s.targets));
    const auto blanks = std::ranges::count(s.symbols, 0);
    CHECK(std::all_of(s.symbols.begin(), s.symbols.begin() + blanks, [](index_t symbol) { return symbol == 0; }));
    // As many characters, one more mark, and the end.
    const auto end = std::ranges::find(s.targets, 0) - s.targets.begin();
    CHECK(end == 5 - blanks + 1);
    CHECK(std::all_of(s.targets.begin() + end + 1, s.targets.end(), [](index_t target) { return target == -1; }));
  }
  CHECK((shown.size() == 8 && held.size() == 2));
  for (const std::string& text : held) CHECK(shown.count(text) == 0);
  const auto levels = task->levels(samples(*task, Split::test, 1, 0, 2));
  CHECK((levels.back().name == "copied" && levels.back().accuracy == 0));
}

TEST_CASE("Pairs that do not fit N are left out, and where too few are left that is said", "[train]") {
  const TextFile file("fit.tsv", "a\tb\nab\tcd\nabcdef\tx\nx\tabcdef\n");
  CHECK(task_of("translate:" + file.path(), 3)->test_size == 1);
  CHECK(refusal("translate:" + file.path(), 2).find("of 4 pairs in '" + file.path() + "', 1 fit N=2, and one to learn from") !=
        std::string::npos);
  CHECK(refusal("translate:" + file.path(), 2).find("the longest needs N=7") != std::string::npos);
  CHECK(check_task("translate").reason() == "translate: names no file; accepted: FILE.tsv|FILE.mo");
  CHECK(refusal("translate:" + file.path() + "," + file.path(), 9).find("takes one file of pairs, given") != std::string::npos);
  CHECK(refusal("translate:/none/such.tsv", 9).find("/none/such.tsv") != std::string::npos);
  CHECK(check_task("translate:" + file.path() + ",size=3").reason().find("size") != std::string::npos);
}

TEST_CASE("A copied text is learned by heart and scored by what it shares with the wanted one", "[train]") {
  std::string lines;
  for (int i = 0; i < 40; ++i)
    lines +=
        std::string(1 + i % 3, static_cast<char>('a' + i % 4)) + std::to_string(i / 4 % 2) + "\t" + (i % 2 ? "odd" : "even") + "\n";
  const TextFile file("copy.tsv", lines);
  const auto task = task_of("translate:" + file.path(), 5);
  RunSettings s{.layer = task->recipe.layer, .body = task->recipe.body, .steps = 60, .rate = 1e-2};
  s.layer.width = 16;
  s.test_samples = task->test_size;
  const RunResult r = train(*task, *variant_of("full"), s);
  REQUIRE(r.chrf);
  CHECK((*r.chrf >= 0.3 && *r.chrf <= 1));
}

TEST_CASE("chrF is 1 of the same text, 0 of another, and as computed by hand between", "[train]") {
  CHECK(chrf("abc def", "abcdef") == Approx(1));
  CHECK(chrf("abc", "xyz") == 0);
  CHECK(chrf("", "xyz") == 0);
  // "ab" for "abc": P = (2/2 + 1/1) / 2 = 1, R = (2/3 + 1/2) / 2 = 7/12; 5 P R / (4 P + R) = 35/55.
  CHECK(chrf("ab", "abc") == Approx(35.0 / 55));
  // Recall weighs more: P and R change places, 5 R P / (4 R + P) = 35/40.
  CHECK(chrf("abc", "ab") == Approx(35.0 / 40));
  // Characters, not bytes: one of one.
  CHECK(chrf("\xc3\xa9", "\xc3\xa8") == 0);
  CHECK_FALSE(Chrf().any());
}

TEST_CASE("Characters are those of UTF-8 and go back to it; what is none is told", "[train]") {
  const std::string text = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\xa6\x86";
  REQUIRE(code_points(text));
  CHECK(*code_points(text) == U"a\u00e9\u20ac\U0001f986");
  CHECK(to_utf8(*code_points(text)) == text);
  for (const char* bytes :
       {"\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "\xc3(", "\xe2\x82"})
    CHECK_FALSE(code_points(bytes));
}

TEST_CASE("A text's label is its file, and translations of one message stand on one side of the test", "[train]") {
  Entries french{{"", header("UTF-8")}}, german = french;
  for (int i = 0; i < 20; ++i) {
    const std::string number = std::to_string(i);
    french.emplace_back("m" + number, "le " + number);
    german.emplace_back("m" + number, "der " + number);
  }
  french.emplace_back("same", "Kuba"), german.emplace_back("same", "Kuba");
  const TextFile a("fr.mo", catalogue(french)), b("de.mo", catalogue(german));
  const auto task = task_of("language:" + b.path() + "," + a.path(), 8);
  CHECK(task->classes == 2);
  REQUIRE(task->test_size == 8);  // a fifth of twenty messages, in two languages
  std::set<std::vector<index_t>> held;
  double labels = 0;
  for (const Sample& s : samples(*task, Split::test, 1, 0, 8)) {
    held.insert(s.symbols);
    labels += static_cast<double>(s.targets.at(0));
    CHECK(s.symbols.size() == 8);
  }
  CHECK((held.size() == 8 && labels == 4));
  std::set<std::vector<index_t>> shown;
  for (const Sample& s : samples(*task, Split::train, 1, 0, 1000)) shown.insert(s.symbols);
  CHECK(shown.size() == 32);
  for (const auto& text : held) CHECK(shown.count(text) == 0);
}

TEST_CASE("Of one file the second fields are the labels, and one label is refused", "[train]") {
  const TextFile two("two.tsv", "le chat\tfr\ndie Katze\tde\nle chien\tfr\nder Hund\tde\n"), one("one.tsv", "a\tx\nb\tx\n");
  CHECK(task_of("language:" + two.path(), 8)->classes == 2);
  CHECK(refusal("language:" + one.path(), 8) ==
        "language: has 1 label in " + one.path() +
            ", and there must be two or more; accepted: several files, whose translations are told "
            "apart, or one of texts with their labels behind a tab");
  CHECK(check_task("switching").reason() == "switching: names no file; accepted: FILE.mo,FILE.mo,... or FILE.tsv");
}

TEST_CASE("Every character of a text that switches languages is labelled with its own", "[train]") {
  const TextFile file("switch.tsv", "aaa\tx\naa\tx\nbbb\ty\nbb\ty\na\tx\nb\ty\n");
  const auto task = task_of("switching:" + file.path(), 30);
  std::set<index_t> seen;
  for (const auto split : {Split::train, Split::test}) {
    for (const Sample& s : samples(*task, split, 1, 0, 20)) {
      REQUIRE((s.symbols.size() == 30 && s.targets.size() == 30 && s.at.size() == 30));
      for (std::size_t i = 0; i < 30; ++i) {
        CHECK(s.at[i] == static_cast<index_t>(i));
        if (s.symbols[i] != 0) CHECK(s.targets[i] == s.symbols[i] - 1);  // 'a' is symbol 1 and of x, 'b' is 2 and of y
        if (s.symbols[i] == 0) CHECK((i > 0 && s.targets[i] == s.targets[i - 1]));
        seen.insert(s.targets[i]);
      }
    }
  }
  CHECK(seen.size() == 2);
}
