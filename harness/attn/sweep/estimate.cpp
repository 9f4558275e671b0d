#include "attn/sweep/estimate.hpp"

#include <algorithm>

#include "attn/sweep/race.hpp"

namespace attn {

namespace {

// A worker's start.
constexpr double start_s = 0.3;
// The gate and fidelity: for a pair of query and key up to N = 2048 (2 cores, AVX-512).
constexpr double check_pair_s = 60e-9;

}  // namespace

double estimated_run_s(const Cell& cell, const Registry& registry) {
  // By the page, whoever computes it: a guest would have to be started and asked, which workers alone do.
  auto name = VariantName::parse(cell.variant);
  if (!name) return 0;
  name->implementation = native;
  const auto variant = registry.configure(name->text());
  if (!variant || (*variant)->is_guest() || !(*variant)->supports(cell.problem)) return 0;
  const Cost cost = (*variant)->cost(cell.problem);
  // A quarter of such a core's FMA peak and half its bandwidth.
  return std::max(cost.flops / (25e9 * static_cast<double>(cell.threads)), cost.bytes / 5e9);
}

double estimate_s(const Cell& cell, const SweepOptions& o, const Registry& registry) {
  const double run_s = estimated_run_s(cell, registry);
  if (run_s == 0) return 0.1;
  const Problem& p = cell.problem;
  const auto samples = static_cast<double>(o.samples), rounds = static_cast<double>(o.rounds);
  const double pairs = static_cast<double>(p.batch * p.heads * p.kv_len) * static_cast<double>(std::min<index_t>(p.q_len, 2048));
  const double checks_s = check_pair_s * pairs;
  const double searched = goal_of(o) ? probes_of(cell, registry) : 0;
  return searched * (start_s + run_s + checks_s) + start_s * rounds + (samples + 2 * rounds) * std::max(o.sample_time_s, run_s) +
         checks_s;
}

}  // namespace attn
