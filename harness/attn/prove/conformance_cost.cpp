// That the declared cost grows as the time does.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "attn/core/time.hpp"
#include "attn/kernels/machine/probes.hpp"
#include "attn/prove/conformance_checker.hpp"

namespace attn::conformance {

namespace {

// The variants of the tree lie between 0.30 below (clustered_improved) and 0.16 above (weights of N^2 floats).
constexpr double growth_slack = 0.4;
constexpr double exponent_slack = 0.25;  // of info(), which knows no logarithms: reformer's N log N is N^1.16

// One number for three kinds of work, for its growth alone: a byte costs about as much as 4 flops, an exponential as 16.
double work_of(const Cost& cost) { return cost.flops + 4 * cost.bytes + 16 * cost.exps; }

// x in N^x, from two points.
double growth(double at_first, double at_last, index_t first, index_t last) {
  return std::log(at_last / at_first) / std::log(static_cast<double>(last) / static_cast<double>(first));
}

// The least of several calls, for at least three and about `enough_s` of them.
template <class F>
double least_cpu_s(double enough_s, F call) {
  double least_s = infinity;
  double spent_s = 0;
  for (int run = 0; run < 3 || (run < 50 && spent_s < enough_s); ++run) {
    const double begin_s = thread_cpu_s();
    call();
    const double took_s = thread_cpu_s() - begin_s;
    spent_s += took_s;
    least_s = std::min(least_s, took_s);
  }
  return least_s;
}

}  // namespace

// Growth from the shorter to the longer length, in processor time of one thread, against that of the declared cost; that
// against what info() declares for long sequences; and no run does more declared flops than the machine can. The shorter
// problem has more heads, so that both hold as many tokens and lie in the same caches. A busy machine shows as time that
// the other did not take: least times are taken in turns, and until they agree or many turns have passed.
void Checker::cost() {
  constexpr index_t shorter = 1024, longer = 4096, turns = 12;
  const auto problem = [&](index_t n, index_t heads) {
    return Problem{.batch = 1,
                   .heads = heads,
                   .kv_heads = heads,
                   .q_len = n,
                   .kv_len = n,
                   .head_dim = 64,
                   .value_dim = 64,
                   .causal = variant_.info().causality == Causality::always};
  };
  const Problem few = problem(shorter, longer / shorter), many = problem(longer, 1);
  for (const Problem& p : {few, many}) {
    if (const Status status = variant_.supports(p); !status) return none(status.reason());
  }
  const auto work = [&](const Problem& p) { return work_of(variant_.cost(p)); };
  const double declared = 1 + growth(work(few), work(many), shorter, longer);
  constexpr index_t long_enough = index_t{1} << 18;
  const double in_the_end = growth(work(problem(long_enough, 1)), work(problem(4 * long_enough, 1)), long_enough, 4 * long_enough);

  const Arena arena(1);
  const Case few_case = case_of(few), many_case = case_of(many);
  const Planned few_plan = plan_trial(variant_, few, 1), many_plan = plan_trial(variant_, many, 1);
  double few_s = infinity, many_s = infinity, flops_per_s = 0, measured = 0, reached = 0;
  const auto time = [&](const Case& c, const Planned& planned, double& least_s) {
    planned.run(arena, c.arrays());
    least_s = std::min(least_s, least_cpu_s(0.05, [&] { planned.run(arena, c.arrays()); }));
  };
  begin(few);
  few_plan.run(arena, few_case.arrays());
  begin(many);
  const auto agrees = [&] { return std::abs(measured - declared) <= growth_slack && reached <= 1.1 * flops_per_s; };
  for (index_t turn = 0; turn < 3 || (turn < turns && !agrees()); ++turn) {
    begin_again(many, "turn " + std::to_string(turn + 1));
    time(few_case, few_plan, few_s);
    time(many_case, many_plan, many_s);
    constexpr index_t probe_iterations = 300'000;  // some milliseconds
    double probe_flops = 0;
    const double probe_s = least_cpu_s(0.02, [&] { probe_flops = kernels::probe_fma(probe_iterations); });
    flops_per_s = std::max(flops_per_s, probe_flops / probe_s);
    measured = 1 + growth(few_s, many_s, shorter, longer);
    reached = variant_.cost(many).flops / many_s;
  }
  finding_.note = fmt::format("time grows as N^{:.2f}, declared work as N^{:.2f}, in the end as N^{:.2f}, by info() as N^{:g}",
                              measured, declared, in_the_end, variant_.info().time_exponent);
  if (std::abs(measured - declared) > growth_slack) return fail(many, fmt::format("from N={} on {}", shorter, finding_.note));
  if (std::abs(in_the_end - variant_.info().time_exponent) > exponent_slack)
    return fail(problem(long_enough, 1),
                fmt::format("work grows as N^{:.2f}, info() says N^{:g}", in_the_end, variant_.info().time_exponent));
  if (reached > 1.1 * flops_per_s)
    fail(many, fmt::format("{:.0f} declared Gflop/s, the machine's peak is {:.0f}", 1e-9 * reached, 1e-9 * flops_per_s));
}

}  // namespace attn::conformance
