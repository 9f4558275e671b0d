#include "attn/sweep/schedule.hpp"

#include <algorithm>
#include <set>

#include "catch.hpp"

using namespace attn;

namespace {

Block block_of(std::size_t cells) {
  Block block;
  block.cells.resize(cells);
  return block;
}

}  // namespace

TEST_CASE("a round has every cell once, in an order that blocks, rounds and seeds change and nothing else") {
  SweepOptions o;
  const Schedule schedule(o);
  const Block block = block_of(20);
  std::set<std::vector<std::size_t>> orders;
  for (std::size_t number = 0; number < 3; ++number) {
    for (std::size_t round = 0; round < 3; ++round) {
      auto order = schedule.order(block, number, round);
      CHECK(order == Schedule(o).order(block, number, round));
      orders.insert(order);
      std::sort(order.begin(), order.end());
      for (std::size_t i = 0; i < order.size(); ++i) CHECK(order[i] == i);
    }
  }
  CHECK(orders.size() == 9);
  SweepOptions other;
  other.order_seed = "2";
  CHECK_FALSE(orders.contains(Schedule(other).order(block, 0, 0)));
}

TEST_CASE("the samples are spread over the rounds, of which the first gates, compares and saves") {
  SweepOptions o;
  o.samples = 5;
  o.rounds = 3;
  o.save_output = "folder";
  const Schedule schedule(o);
  REQUIRE(schedule.rounds() == 3);
  const Cell cell{.variant = "local:left=3", .problem = {}, .input = "iid:1"};
  index_t samples = 0;
  for (std::size_t round = 0; round < 3; ++round) {
    const Settings s = schedule.settings(cell, round);
    CHECK((s.samples == 1 || s.samples == 2));
    samples += s.samples;
    CHECK(s.clock);
    CHECK(s.gate == (round == 0));
    CHECK((s.fidelity == Comparison::rows) == (round == 0));
    CHECK(s.output_file.empty() == (round != 0));
  }
  CHECK(samples == 5);
  Cell other = cell;
  other.seed = 2;
  CHECK(schedule.settings(other, 0).output_file != schedule.settings(cell, 0).output_file);
  CHECK(schedule.settings(cell, 0).output_file.starts_with("folder/local-"));
}

TEST_CASE("a cell is measured as the sweep was asked to") {
  SweepOptions o;
  o.samples = 1, o.rounds = 2;
  o.sample_time_s = 0.25;
  o.fidelity = "full", o.fidelity_seeds = 7;
  o.pin = false;
  o.against = "full";
  const Schedule schedule(o);
  const Settings first = schedule.settings({.variant = "local", .problem = {}, .input = "iid:1"}, 0);
  CHECK((first.samples == 1 && first.sample_min_s == 0.25 && first.clock));
  CHECK((first.fidelity == Comparison::full && first.fidelity_seeds == 7));
  CHECK((!first.pin && first.against == "full" && first.output_file.empty()));
  const Settings second = schedule.settings({.variant = "local", .problem = {}, .input = "iid:1"}, 1);
  CHECK((second.samples == 0 && !second.clock && !second.gate && second.fidelity == Comparison::none));
}

TEST_CASE("a budget of no seconds is none") {
  SweepOptions o;
  CHECK_FALSE(Schedule(o).budget_is_used_up());
  o.budget_s = 1e-9;
  const Schedule schedule(o);
  while (!schedule.budget_is_used_up()) {
  }
  o.budget_s = 1e9;
  CHECK_FALSE(Schedule(o).budget_is_used_up());
}

TEST_CASE("a cell has more rounds while its interval is wider than asked for, three times as many at most") {
  SweepOptions o;
  o.rounds = 3;
  const std::vector<double> wide{1, 1.1, 1.2, 1.3, 1.4}, narrow{1, 1.001, 1.002, 1.003};
  CHECK_FALSE(Schedule(o).wants_more(wide, 3));  // nothing was asked for
  o.steady_percent = 5;
  CHECK(Schedule(o).wants_more(wide, 3));
  CHECK(Schedule(o).wants_more(wide, 8));
  CHECK_FALSE(Schedule(o).wants_more(wide, 9));
  CHECK_FALSE(Schedule(o).wants_more(narrow, 3));
  CHECK_FALSE(Schedule(o).wants_more({}, 3));
  CHECK(Schedule(o).further_rounds(8) == 6);
  CHECK(Schedule(o).further_rounds(1) == 1);
  o.steady_percent = 50;
  CHECK_FALSE(Schedule(o).wants_more(wide, 3));
}
