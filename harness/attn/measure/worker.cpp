#include "attn/measure/worker.hpp"

#include <algorithm>
#include <limits>
#include <new>

#include "attn/inputs/input.hpp"
#include "attn/kernels/isa.hpp"
#include "attn/measure/clock.hpp"
#include "attn/measure/gate.hpp"
#include "attn/measure/machine.hpp"
#include "attn/measure/memory.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

namespace {

Measurement failed(Measurement m, Outcome outcome, std::string reason) {
  m.outcome = outcome;
  m.reason = std::move(reason);
  m.samples_s.clear();
  return m;
}

Measurement measure(const Registry& registry, const Cell& cell, const Settings& settings, double started_s) {
  Measurement m;
  if (!cell.isa.empty()) {
    if (Status forced = kernels::force_isa(cell.isa); !forced) return failed(m, Outcome::unsupported, forced.reason());
  }
  m.isa = kernels::active_isa();
  auto variant = registry.configure(cell.variant);
  if (!variant) return failed(m, Outcome::unsupported, variant.reason());
  const Problem& p = cell.problem;
  if (Status status = (*variant)->supports(p); !status) return failed(m, Outcome::unsupported, status.reason());
  const auto input = parse_input(cell.input);
  if (!input) return failed(m, Outcome::unsupported, input.reason());
  auto tensors = (*input)->make(p, cell.seed);
  if (!tensors) return failed(m, Outcome::unsupported, tensors.reason());
  const FloatInputs in{tensors->q, tensors->k, tensors->v};

  const Arena arena(cell.threads, settings.pin ? Pinning::cores : Pinning::none);
  arena.execute([&] { parallel_tasks(cell.threads, [](index_t, int) {}); });  // threads and their stacks exist from here on

  Buffer output_memory(static_cast<std::size_t>(p.batch * p.heads * p.q_len * p.value_dim) * sizeof(float));
  const Output output(output_memory.as<float>(), {p.batch, p.heads, p.q_len, p.value_dim});
  // NaN: an element that the fast path forgets cannot pass the gate.
  std::fill_n(output.data_handle(), output.size(), std::numeric_limits<float>::quiet_NaN());

  m.cost = (*variant)->cost(p);
  const Parameters specs = (*variant)->parameters(p);
  m.parameter_bytes = parameter_bytes(specs);

  WorkspacePlan booked(cell.threads);
  const auto plan = (*variant)->plan(p, booked);
  m.workspace_bytes = booked.bytes();

  // What the plan left behind (generated code, small tables) is not the run's; parameters and workspace are.
  const bool peak_readable = reset_peak_resident();
  const index_t level = resident_bytes();
  const ParameterSet<float> parameters = make_parameters(specs, cell.seed);
  Workspace workspace(booked);
  const auto run = [&] { plan->run(in, parameters, output, workspace); };
  const auto run_in_arena = [&] { arena.execute(run); };
  const double first_begin_s = monotonic_s();
  run_in_arena();
  const double first_run_s = monotonic_s() - first_begin_s;
  m.peak_rss_bytes = peak_readable && level >= 0 ? std::max<index_t>(0, peak_resident_bytes() - level) : -1;

  double gate_s = 0;
  if (settings.gate) {
    const double begin_s = monotonic_s();
    m.gate = check_against_definition(**variant, p, in, parameters, cell.seed, output, arena);
    if ((*variant)->info().exactness == Exactness::different) {
      m.fidelity.reason = "a different operator: distance to softmax attention says nothing";
    } else {
      m.fidelity = compare_with_softmax(p, in, output);
    }
    gate_s = monotonic_s() - begin_s;
    if (!passed(m.gate)) {
      return failed(m, Outcome::inaccurate,
                    "the fast path misses its definition by " + format_number(m.gate.max_abs) + ", allowed " +
                        format_number(m.gate.allowance_abs) + " (" + m.gate.scope + ")");
    }
  }
  if (!settings.clock) return m;

  constexpr double warm_up_below_s = 1;  // a slower run has its caches and clocks warm from the first
  if (first_run_s < warm_up_below_s) run_in_arena();
  m.setup_s = monotonic_s() - started_s - gate_s;
  m.samples_s = clock_samples([&] { run_in_arena(); }, settings.samples, settings.sample_min_s);
  m.fma_gflops = quick_fma_gflops(arena);
  return m;
}

}  // namespace

Measurement measure_cell(const Registry& registry, const Cell& cell, const Settings& settings, double started_s) {
  // The one place where exceptions of variants and libraries end.
  try {
    return measure(registry, cell, settings, started_s);
  } catch (const std::bad_alloc&) {
    return failed({}, Outcome::out_of_memory, "an allocation was refused");
  } catch (const std::exception& e) {
    return failed({}, Outcome::crashed, std::string("exception: ") + e.what());
  } catch (...) {
    return failed({}, Outcome::crashed, "an exception that is no std::exception");
  }
}

}  // namespace attn
