// What many threads would find, on a machine that need not have them.
#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/exec/recorder.hpp"
#include "attn/measure/scaling.hpp"
#include "attn/prove/trial.hpp"
#include "attn/sweep/scaling.hpp"
#include "attn/variant/planned.hpp"
#include "catch.hpp"
#include "harness/variant_of.hpp"

namespace attn {

namespace {

// With default options, all variants and their other implementations, but for those over ranks.
VariantList all_variants() {
  auto list = test::registry().configure_list("*@*");
  REQUIRE(list);
  return *std::move(list);
}

Problem supported(const Variant& variant, Problem p) {
  if (!variant.supports(p)) p.causal = !p.causal;
  INFO(variant.short_name());
  REQUIRE(variant.supports(p));
  return p;
}

}  // namespace

TEST_CASE("more threads than processors give the bits that as many would") {
  for (const auto& variant : all_variants()) {
    const Problem p =
        supported(*variant, {.heads = 3, .kv_heads = 3, .q_len = 150, .kv_len = 150, .head_dim = 16, .value_dim = 16});
    for (const int threads : {16, 64}) {
      const trial::Case c(p, trial::Layout::dense, trial::Border::soft, trial::named_for(*variant, p));
      const Planned planned = trial::plan_trial(*variant, p, threads);
      const std::vector<float> many = trial::output_of_run(planned, Arena(threads), c);
      Recorder rehearsal(threads);
      c.fill_output(0);
      planned.run(c.arrays());
      INFO(variant->short_name() << " on " << threads << " threads");
      CHECK(trial::same_bits(many, c.output()));
    }
  }
}

// Time is taken, so it is asked for by its tag. A thread that spins for another takes the processor from it.
TEST_CASE("more threads than processors take at most half as long again", "[.time]") {
  const int cores = usable_cores();
  for (const char* name : {"full", "performer", "sinkhorn"}) {
    const auto variant = test::variant_of(name);
    const Problem p{.heads = 8, .kv_heads = 8, .q_len = 2048, .kv_len = 2048, .head_dim = 64, .value_dim = 64};
    const trial::Case c(p);
    const auto least_s = [&](int threads) {
      const Planned planned = trial::plan_trial(*variant, p, threads);
      const Arena arena(threads, Pinning::cores);
      double least = std::numeric_limits<double>::infinity();
      for (int i = 0; i < 12; ++i) {
        const double begin_s = monotonic_s();
        planned.run(arena, c.arrays());
        if (i > 1) least = std::min(least, monotonic_s() - begin_s);
      }
      return least;
    };
    const double alone_s = least_s(cores);
    for (const int threads : {16, 64}) {
      const double crowded_s = least_s(threads);
      INFO(name << ": " << alone_s << " s on " << cores << " threads, " << crowded_s << " s on " << threads);
      CHECK(crowded_s <= 1.5 * alone_s);
    }
  }
}

}  // namespace attn
