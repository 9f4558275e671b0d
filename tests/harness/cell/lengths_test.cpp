#include "attn/cell/lengths.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "catch.hpp"

using namespace attn;

namespace {

const Problem steps{.batch = 5, .q_len = 3, .kv_len = 100, .causal = true, .pass = Pass::decode};

std::vector<index_t> lengths(std::string_view name, const Problem& p = steps, std::uint64_t seed = 1) {
  const auto all = lengths_of(name, p, seed);
  INFO((all ? std::string() : all.reason()));
  REQUIRE(all);
  return *all;
}
std::string refusal(std::string_view name, const Problem& p = steps) {
  const auto all = lengths_of(name, p, 1);
  return all ? "" : all.reason();
}

}  // namespace

TEST_CASE("lengths are named equal, zipf, by a range or by a file; other names are refused with the given text") {
  for (const char* name : {"equal", "zipf", "uniform:1..9", "file:lengths.txt"}) CHECK(*parse_lengths(name) == name);
  CHECK(*parse_lengths("uniform:007..9") == "uniform:7..9");
  for (const char* name : {"", "eqal", "uniform", "uniform:", "uniform:5", "uniform:x..9", "uniform:5..", "file:", "zipf:2"}) {
    INFO(name);
    CHECK_FALSE(parse_lengths(name));
  }
  CHECK(parse_lengths("eqal").reason() == "'eqal' names no lengths; accepted: equal, uniform:LOW..HIGH, zipf, file:PATH");
  for (const char* name : {"uniform:0..9", "uniform:-3..9", "uniform:9..8"})
    CHECK(parse_lengths(name).reason().find("LOW is 1 at least and HIGH no less than LOW") != std::string::npos);
}

TEST_CASE("layouts of keys are contiguous or pages of some tokens") {
  CHECK((*parse_layout("contiguous") == 0 && *parse_layout("paged:16") == 16));
  CHECK((layout_name(0) == "contiguous" && layout_name(16) == "paged:16"));
  for (const char* name : {"", "paged", "paged:", "paged:0", "paged:-1", "paged:x", "pages:16", "paged:99999999"}) {
    INFO(name);
    CHECK_FALSE(parse_layout(name));
  }
}

TEST_CASE("zipf: the i-th sequence has 1/i of the keys, and a step's tokens at least") {
  CHECK(lengths("zipf") == std::vector<index_t>{100, 50, 33, 25, 20});
  Problem few = steps;
  few.kv_len = 8;
  CHECK(lengths("zipf", few) == std::vector<index_t>{8, 4, 3, 3, 3});
}

TEST_CASE("uniform lengths are drawn from the seed within their range, the longest first") {
  const auto drawn = lengths("uniform:10..90");
  CHECK(std::ranges::is_sorted(drawn, std::greater<>()));
  CHECK((drawn.front() <= 90 && drawn.back() >= 10 && drawn.front() > drawn.back()));
  CHECK(lengths("uniform:10..90") == drawn);
  CHECK(lengths("uniform:10..90", steps, 2) != drawn);
  CHECK(lengths("uniform:7..7") == std::vector<index_t>(5, 7));
  CHECK(lengths("equal").empty());
}

TEST_CASE("lengths that the batch, the keys or the step do not allow are refused") {
  CHECK(refusal("uniform:10..101") == "--lengths uniform:10..101: a length of 101 is outside of 3..100, the keys that --n gives");
  CHECK(refusal("uniform:2..2") == "--lengths uniform:2..2: a length of 2 has no step of 3 tokens");
  Problem prefill = steps;
  prefill.pass = Pass::forward;
  CHECK(lengths("uniform:2..2", prefill) == std::vector<index_t>(5, 2));
}

TEST_CASE("a file has a number for each sequence") {
  const std::string path = "lengths_test.txt", name = "file:" + path;
  const auto write = [&](const char* text) { std::ofstream(path) << text; };
  write("5 100,7\n  3\n40\n");
  CHECK(lengths(name) == std::vector<index_t>{5, 100, 7, 3, 40});
  write("5 100 7 3");
  CHECK(refusal(name).find(": 4 lengths are given for 5 sequences: as many are accepted as --batch says") != std::string::npos);
  for (const char* text : {"5 100 7 3 101", "5 100 7 3 0", "5 100 7 3 -4"}) {
    write(text);
    CHECK(refusal(name).find("is outside of 3..100, the keys that --n gives") != std::string::npos);
  }
  write("5 100 7 3 4x");
  CHECK(refusal(name).find("'4x' is not a whole number") != std::string::npos);
  std::remove(path.c_str());
  CHECK(refusal(name).find("lengths_test.txt") != std::string::npos);
}
