#include "attn/exec/pages.hpp"

#include <set>
#include <string>

#include "attn/exec/state.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

std::string refusal(std::vector<std::int32_t> table, index_t sequences, index_t pool) {
  const auto made = PageTable::of(std::move(table), sequences, pool);
  return made ? "" : made.reason();
}

}  // namespace

TEST_CASE("a page table names each page of the pool once at most") {
  CHECK(refusal({3, 0, 1, 4}, 2, 5).empty());
  CHECK(refusal({3, 0, 1, 5}, 2, 5) == "page 5 of sequence 1 is outside of the pool: 0..4 are accepted");
  CHECK(refusal({-1, 0}, 1, 5) == "page -1 of sequence 0 is outside of the pool: 0..4 are accepted");
  CHECK(refusal({3, 0, 1, 3}, 2, 5) == "page 3 stands twice, for sequence 0 and sequence 1: a page holds tokens of one place");
  CHECK(refusal({2, 2}, 1, 5) == "page 2 stands twice, for sequence 0 and sequence 0: a page holds tokens of one place");
  CHECK(refusal({3, 0, 1}, 2, 5) == "a table of 3 pages is not as long for each of 2 sequences");
}

TEST_CASE("a shuffled table has every page of its pool, in no order, always the same") {
  const PageTable table = PageTable::shuffled(3, 40), again = PageTable::shuffled(3, 40);
  const auto *pages = table.layout(16, 0, 0).pages, *others = again.layout(16, 0, 0).pages;
  std::set<std::int32_t> all(pages, pages + 120);
  CHECK((table.pool() == 120 && table.each() == 40 && all.size() == 120 && *all.begin() == 0 && *all.rbegin() == 119));
  CHECK(std::equal(pages, pages + 120, others));
  CHECK_FALSE(std::is_sorted(pages, pages + 120));
}

TEST_CASE("a state in pages finds each token where its table says, and a copy has memory of its own") {
  constexpr index_t length = 37, page_rows = 8;
  StateSpec spec{.tensors = {{.name = "k", .extents = {2, 40, 1}}, {.name = "v", .extents = {2, 40, 3}}},
                 .of_tokens = true,
                 .page_rows = page_rows};
  State state(spec, 2);
  CHECK(state.bytes() == 2 * 5 * 2 * page_rows * (1 + 3) * 4);
  // Token t of head h of sequence b is 1000 b + 100 h + t; sequence 1 is shorter.
  const std::vector<index_t> lengths{length, 11};
  std::vector<float> k(2 * 2 * length), v(3 * k.size());
  for (std::size_t i = 0; i < k.size(); ++i) {
    const auto at = static_cast<index_t>(i);
    k[i] = static_cast<float>(1000 * (at / (2 * length)) + 100 * (at / length % 2) + at % length);
    for (std::size_t d = 0; d < 3; ++d) v[3 * i + d] = k[i];
  }
  Arrays tokens;
  tokens.k = View<const float, 4>(k.data(), {2, 2, length, 1});
  tokens.v = View<const float, 4>(v.data(), {2, 2, length, 3});
  tokens.lengths = lengths;
  state.append(tokens);
  const State other = state.copy();
  for (float& x : state.elements("k")) x = -1;
  for (const State* holder : {&other, static_cast<const State*>(&state)}) {
    const Arrays all = holder->asked_by({});
    for (index_t b = 0; b < 2; ++b) {
      for (index_t h = 0; h < 2; ++h) {
        for (index_t t = 0; t < lengths[static_cast<std::size_t>(b)]; ++t) {
          const index_t page = all.layout.pages[b * all.layout.pages_stride + t / page_rows], row = all.layout.row(t);
          const float* const key = all.k.f32()[b][h].row(row) + page * all.layout.k_page_stride;
          const float* const value = all.v.f32()[b][h].row(row) + page * all.layout.v_page_stride;
          const auto expected = static_cast<float>(1000 * b + 100 * h + t);
          CHECK(*key == (holder == &state ? -1 : expected));
          CHECK((value[0] == expected && value[2] == expected));
        }
      }
    }
  }
}
