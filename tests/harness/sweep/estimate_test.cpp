// How long a cell takes, by hand: 60 ns for a pair of query and key where the definition is asked, 0.3 s for a worker's start, the page's
// work at 25 GFLOP/s a thread and 5 GB/s, whichever takes longer.
#include "attn/sweep/estimate.hpp"

#include "attn/sweep/race.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"

using namespace attn;
using attn::test::registry;
using attn::test::variant_of;

namespace {

Cell cell_of(const std::string& variant, index_t n = 4096) {
  return {.variant = variant_of(variant)->name().text(),
          .problem = {.batch = 2, .heads = 3, .kv_heads = 3, .q_len = n, .kv_len = n, .head_dim = 64, .value_dim = 64},
          .input = "iid:1",
          .threads = 2};
}

constexpr double pairs = 6.0 * 4096 * 4096, run_s = pairs * 4 * 64 / 50e9, checks_s = 60e-9 * 6 * 4096 * 2048;

}  // namespace

TEST_CASE("a run takes as long as its flops or its bytes, whichever are more") {
  CHECK(estimated_run_s(cell_of("full"), registry()) == Approx(run_s));
  CHECK(estimated_run_s(cell_of("full@unfused"), registry()) == Approx(run_s));
  CHECK(estimated_run_s(cell_of("copy_v"), registry()) == Approx(2.0 * 6 * 4096 * 64 * 4 / 5e9));
}

TEST_CASE("nothing is known of a run that a page refuses, or of a name that nobody has") {
  Cell never = cell_of("fnet");
  never.problem.causal = true;
  CHECK(estimated_run_s(never, registry()) == 0);
  CHECK(estimate_s(never, {}, registry()) == Approx(0.1));
  for (const char* name : {"nobody", "", "full:left=1"}) {
    never.variant = name;
    CHECK(estimated_run_s(never, registry()) == 0);
  }
}

TEST_CASE("a cell takes a start a round, its samples with two runs before them a round, and the checks once") {
  SweepOptions o;
  o.samples = 6, o.rounds = 2;
  CHECK(estimate_s(cell_of("full"), o, registry()) == Approx(2 * 0.3 + (6 + 2 * 2) * run_s + checks_s));
  o.sample_time_s = 5;  // a sample lasts so long at least
  CHECK(estimate_s(cell_of("full"), o, registry()) == Approx(2 * 0.3 + (6 + 2 * 2) * 5 + checks_s));
}

TEST_CASE("a race takes a start, a run and the checks more for every budget that is tried") {
  SweepOptions o;
  const double alone = estimate_s(cell_of("full"), o, registry());
  o.iso_error = 0.1;
  CHECK(probes_of(cell_of("full"), registry()) == 1);
  CHECK(estimate_s(cell_of("full"), o, registry()) == Approx(alone + 0.3 + run_s + checks_s));
}

TEST_CASE("a goal is an error or a skill, or there is none") {
  SweepOptions o;
  CHECK_FALSE(goal_of(o));
  o.iso_error = 0.25;
  CHECK((goal_of(o)->of == Goal::Of::error && goal_of(o)->value == 0.25));
  o.iso_error = 0, o.iso_skill = 0;
  CHECK((goal_of(o)->of == Goal::Of::skill && goal_of(o)->value == 0));
}

TEST_CASE("a search tries no more budgets than are foreseen, whatever is needed") {
  const Goal goal{Goal::Of::error, 0.5};
  for (const index_t n : {1, 2, 100, 1000}) {
    const Cell cell = cell_of("local", n);
    int most = 0;
    for (index_t needed = 1; needed <= n; ++needed) {
      int tried = 0;
      const auto found = smallest_budget(1, n, goal, [&](index_t value) -> Result<double> {
        ++tried;
        return value >= needed ? 0.0 : 1.0;
      });
      REQUIRE(found);
      most = std::max(most, tried);
    }
    INFO("N=" << n);
    CHECK(most <= probes_of(cell, registry()));
    CHECK(probes_of(cell, registry()) <= most + 5);
  }
}

TEST_CASE("cells are one but for the budget where nothing else differs") {
  const auto same = [](const Cell& a, const Cell& b) { return same_but_budget(a, b, registry()); };
  const Cell few = cell_of("local:left=3,right=3"), many = cell_of("local:left=9,right=9");
  CHECK(same(few, many));
  CHECK(same(cell_of("full"), cell_of("full")));
  CHECK_FALSE(same(few, cell_of("local:left=3,right=3,sinks=1")));
  CHECK_FALSE(same(few, cell_of("full")));
  CHECK_FALSE(same(few, cell_of("local:left=3,right=3", 64)));
  Cell other = many;
  other.seed = 2;
  CHECK_FALSE(same(few, other));
}
