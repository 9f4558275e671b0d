#include "attn/exec/state.hpp"

#include <array>

#include "catch.hpp"

using namespace attn;

namespace {

StateSpec rows(index_t count) { return {.tensors = {{.name = "v", .extents = {1, count, 1}}}, .of_tokens = true}; }

// Tokens whose only number is their position.
void append(State& state, index_t count) {
  std::vector<float> v;
  for (index_t t = 0; t < count; ++t) v.push_back(static_cast<float>(state.end() + t));
  Arrays tokens;
  tokens.v = View<const float, 4>(v.data(), {1, 1, count, 1});
  state.append(tokens);
}

std::vector<float> held(const State& state) {
  std::vector<float> all;
  const auto v = state["v"].f32();
  for (index_t r = 0; r < v.extent(2); ++r) all.push_back(v(0, 0, r, 0));
  return all;
}

}  // namespace

TEST_CASE("a state of tokens keeps the last ones, each in the row of its position") {
  State state(rows(4), 1);
  append(state, 3);
  CHECK(held(state) == std::vector<float>{0, 1, 2, 0});
  append(state, 2);
  CHECK(held(state) == std::vector<float>{4, 1, 2, 3});
  append(state, 9);  // more than there are rows
  CHECK(held(state) == std::vector<float>{12, 13, 10, 11});
  CHECK(state.length() == 14);
}

TEST_CASE("a state's tensors are as the spec says before the first token, and its bytes are theirs") {
  const StateSpec spec{{{.name = "sum", .extents = {2, 3}}, {.name = "peak", .extents = {2}, .at_first = -1}}};
  CHECK(spec.bytes() == (2 * 3 + 2) * 4);
  State state(spec, 3, 10);
  CHECK(state.bytes() == 3 * spec.bytes());
  CHECK(state.end() == 10);
  CHECK(state["sum"].size() == 3 * 2 * 3);
  CHECK(state.find("k") == nullptr);
  state["peak"].f32_out<2>()(2, 1) = 5;
  state.advance(4);
  CHECK(state.end() == 14);
  state.clear();
  CHECK(state.end() == 10);
  for (index_t b = 0; b < 3; ++b)
    for (index_t h = 0; h < 2; ++h) CHECK(state["peak"].f32<2>()(b, h) == -1);
}

TEST_CASE("tokens that come again after a rewind take the rows of those that went") {
  State state(rows(4), 1);
  append(state, 4);
  state.rewind(2);
  CHECK((state.length() == 2 && state.end() == 2));
  state["v"].f32_out()(0, 0, 3, 0) = -1;
  append(state, 1);
  CHECK((state.length() == 3 && held(state) == std::vector<float>{0, 1, 2, -1}));
}

TEST_CASE("a ring that is rewound goes on where it was") {
  State state(rows(3), 1);
  append(state, 5);
  CHECK(held(state) == std::vector<float>{3, 4, 2});
  state.rewind(1);
  append(state, 1);
  CHECK((state.length() == 5 && held(state) == std::vector<float>{3, 4, 2}));
}

TEST_CASE("sums keep what was folded into them when the length goes back") {
  State state({.tensors = {{.name = "sums", .extents = {2}, .at_first = 7}}}, 1);
  state.advance(3);
  state.rewind(1);
  CHECK((state.length() == 2 && state["sums"].f32<2>()(0, 1) == 7));
}

TEST_CASE("a copy has the same tokens in memory of its own") {
  State state(rows(3), 1);
  append(state, 5);
  const State copy = state.copy();
  CHECK((copy.length() == 5 && copy.end() == 5 && held(copy) == held(state)));
  append(state, 1);
  CHECK(held(copy) == std::vector<float>{3, 4, 2});
}

TEST_CASE("a state of other rows takes over the tokens that both have rows for") {
  State few(rows(3), 1), more(rows(5), 1), less(rows(2), 1);
  append(few, 5);
  more.adopt(few);
  CHECK((more.length() == 5 && held(more) == std::vector<float>{0, 0, 2, 3, 4}));
  append(more, 2);
  CHECK(held(more) == std::vector<float>{5, 6, 2, 3, 4});
  less.adopt(more);
  CHECK((less.length() == 7 && held(less) == std::vector<float>{6, 5}));
}

TEST_CASE("the last tokens of each block may last, and the others go round in a ring") {
  StateSpec spec = rows(3 * 2 + 4);
  spec.pinned = 6, spec.block = 5, spec.summary = 2;
  State state(spec, 1);
  append(state, 9);
  CHECK(held(state) == std::vector<float>{3, 4, 8, 0, 0, 0, 0, 5, 6, 7});
  append(state, 4);
  CHECK(held(state) == std::vector<float>{3, 4, 8, 9, 0, 0, 12, 5, 10, 11});
  const KeyLayout layout = spec.layout();
  for (index_t key = 0; key < 15; ++key) {
    for (const index_t step : {1, 2, 3}) {
      const index_t evenly = layout.evenly(key, step);
      REQUIRE(evenly >= 1);
      for (index_t e = 0; e < evenly; ++e) REQUIRE(layout.row(key + e * step) == layout.row(key) + e * step);
    }
  }
}

TEST_CASE("the first tokens that a state pins are taken over with the last ones") {
  const auto pinned = [](index_t count) {
    StateSpec spec = rows(count);
    spec.pinned = 1;
    return spec;
  };
  State few(pinned(4), 1), more(pinned(6), 1);
  append(few, 6);
  CHECK(held(few) == std::vector<float>{0, 4, 5, 3});
  more.adopt(few);
  CHECK(held(more) == std::vector<float>{0, 0, 0, 3, 4, 5});
}
