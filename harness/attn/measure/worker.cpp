#include "attn/measure/worker.hpp"

#include <algorithm>
#include <limits>
#include <new>
#include <optional>

#include "attn/core/text.hpp"
#include "attn/core/time.hpp"
#include "attn/exec/choice_time.hpp"
#include "attn/exec/recorder.hpp"
#include "attn/exec/seating.hpp"
#include "attn/inputs/npy.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/measure/clock.hpp"
#include "attn/measure/fidelity.hpp"
#include "attn/measure/machine.hpp"
#include "attn/measure/memory.hpp"
#include "attn/measure/meters.hpp"
#include "attn/measure/scaling.hpp"
#include "attn/prove/difference.hpp"
#include "attn/prove/gate.hpp"
#include "attn/prove/gradient_check.hpp"
#include "attn/variant/remote.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

namespace {

Measurement failed(Measurement m, Outcome outcome, std::string reason) {
  m.outcome = outcome;
  m.reason = std::move(reason);
  m.samples_s.clear();
  m.against_s.clear();
  m.append_s.clear();
  return m;
}

std::string missed(const GateResult& gate) {
  if (gate.max_abs == std::numeric_limits<double>::max())
    return "of the fast path and its definition one is finite where the other is not (" + gate.scope + ")";
  return "the fast path misses its definition by " + format_number(gate.max_abs) + ", allowed " +
         format_number(gate.allowance_abs) + " (" + gate.scope + ")";
}

// "; worst at ...", where the whole output was compared: then it is small.
std::string where(const CellRun& run, const GateResult& gate) {
  if (gate.scope != "whole" || run.decodes() || !run.lengths().empty() || run.remote() != nullptr) return "";
  const std::string words = where_it_differs(run.variant(), run.problem(), run.arrays(), run.parameters(), gate.allowance_abs,
                                             [&](const Arrays& arrays) { run.run(arrays, run.parameters()); });
  return words.empty() ? "" : "; " + words;
}

// Of two sequences, that of the one which is nearer to its allowance or further beyond it.
GateResult worse(const GateResult& a, const GateResult& b) {
  return b.max_abs * a.allowance_abs > a.max_abs * b.allowance_abs ? b : a;
}

// Each sequence as if it were alone; the output of rows that it does not have is zero.
GateResult gate_of_sequences(const CellRun& run) {
  GateResult gate;
  for (index_t b = 0; b < run.problem().batch; ++b) {
    const auto [p, arrays, sequence] = run.alone(b);
    const View<const float, 4> out = arrays.out.f32();
    const GateResult own =
        run.decodes() ? check_step_against_definition(run.variant(), p, sequence, run.parameters(), run.seed(), out, run.arena())
                      : check_against_definition(run.variant(), p, arrays, run.parameters(), run.seed(), out, run.arena());
    gate = b == 0 ? own : worse(gate, own);
    for (index_t h = 0; h < p.heads; ++h)
      for (index_t i = p.q_len; i < run.problem().q_len; ++i)
        for (index_t d = 0; d < p.value_dim; ++d)
          if (run.output()(b, h, i, d) != 0) gate.max_abs = std::numeric_limits<double>::max();
  }
  return gate;
}

GateResult gate_of(const CellRun& run) {
  if (!run.variant().has_definition()) return {.scope = std::string(ungated)};
  if (!run.lengths().empty()) return gate_of_sequences(run);
  if (run.decodes())
    return check_step_against_definition(run.variant(), run.problem(), run.sequence(), run.parameters(), run.seed(), run.output(),
                                         run.arena());
  return check_against_definition(run.variant(), run.problem(), run.arrays(), run.parameters(), run.seed(), run.output(),
                                  run.arena());
}

// The gradients of a problem of at most so many queries and keys: the tape holds the weights of all pairs, several times.
constexpr index_t backward_twin = 256;

std::string backward_on_twin(const CellRun& run) {
  Problem p = run.problem();
  p.batch = 1;
  p.q_len = std::min(p.q_len, backward_twin);
  p.kv_len = std::min(p.kv_len, backward_twin);
  for (const auto& [argument, error, size, allowed] : check_backward(run.variant(), p, run.arrays(), run.seed(), run.arena())) {
    if (error <= allowed) continue;
    return "the backward pass misses the gradient of " + argument + " by " + format_number(error) + ", allowed " +
           format_number(allowed) + " (at " + to_string(p) + ")";
  }
  return "";
}

void measure_storage_error(const CellRun& run, Measurement& m) {
  if (run.problem().dtype == DType::f32 && run.problem().kv_dtype == DType::f32) return;
  if (!run.lengths().empty()) return;  // of which each would have its own
  const auto given = run.unrounded();
  if (!given) return;  // a file that has gone meanwhile
  Arrays as_given = run.sequence();
  as_given.q = given->q, as_given.k = given->k, as_given.v = given->v;
  const auto error = storage_error(run.variant(), run.problem(), run.sequence(), as_given, run.parameters());
  m.stored = error.has_value();
  m.storage_error = error.value_or(0);
}

// The variant to be clocked beside `run`, checked like a cell of its own.
Result<std::unique_ptr<CellRun>> reference_of(const CellRun& run, const Registry& registry, const Settings& settings,
                                              Outcome& outcome) {
  const auto refusal = [&](const std::string& why) { return refuse("--against " + settings.against + ": " + why); };
  outcome = Outcome::unsupported;
  auto reference = run.beside(registry, settings.against);
  if (!reference) return refusal(reference.reason());
  (*reference)->equip(make_parameters((*reference)->specs(), run.seed(), (*reference)->fitted()));
  (*reference)->run();
  if (!settings.gate) return reference;
  outcome = Outcome::inaccurate;
  if (const GateResult gate = gate_of(**reference); !passed(gate)) return refusal(missed(gate));
  return reference;
}

// One run, and how many threads its tasks could keep busy.
void run_and_record(const std::function<void()>& run, const Settings& settings, Measurement& m) {
  if (!settings.gate) return run();  // it stands in the first round
  Recorder recorder;
  run();
  m.parallelism = parallelism_of(recorder.take()).ratio();
}

double middle(std::vector<double> samples) {
  const auto at = samples.begin() + std::ssize(samples) / 2;
  std::nth_element(samples.begin(), at, samples.end());
  return *at;
}

void take_samples(const CellRun& run, const CellRun* reference, const Settings& settings, Measurement& m) {
  const LayerClock before = run.layer_clock() != nullptr ? *run.layer_clock() : LayerClock{};
  double chosen_s = 0, runs = 0;
  const auto own = [&] {
    const double before_s = choice_s();
    run.again();
    chosen_s += choice_s() - before_s;
    runs += 1;
  };
  if (reference != nullptr) {
    const auto others = [&] { reference->again(); };
    auto pairs = clock_pairs({own, run.remote()}, {others, reference->remote()}, settings.samples, settings.sample_min_s);
    m.samples_s = std::move(pairs.a_s);
    m.against_s = std::move(pairs.b_s);
    m.against = settings.against;
  } else {
    m.samples_s = clock_samples({own, run.remote()}, settings.samples, settings.sample_min_s);
  }
  if (run.remote() == nullptr) m.choice_share = chosen_s / (runs * middle(m.samples_s));
  const auto append = [&] { run.append(); };
  if (run.decodes() && run.remote() == nullptr) m.append_s = clock_samples({append}, settings.samples, settings.sample_min_s);
  if (const LayerClock* after = run.layer_clock())
    m.mixer_share = (after->mixer_s - before.mixer_s) / (after->layer_s - before.layer_s);
}

// Of ranks their figures; neither they nor a guest show their tasks or what a meter of this process could read.
void note_remote(const CellRun& run, Measurement& m) {
  if (run.remote() == nullptr) return;
  const auto ranks = run.remote()->over_ranks();
  m.over_ranks = ranks.has_value();
  m.ranks = ranks.value_or(RankFigures{});
  m.parallelism = 0;
  m.meters.unsupported = "unsupported: processes of their own did it";
}

Measurement measure(const Registry& registry, const Cell& cell, const Settings& settings, double started_s,
                    const std::function<void(const Needs&)>& tell) {
  Measurement m;
  std::optional<OnNodes> nodes;  // an unpinned thread has none
  if (settings.pin) nodes.emplace(seating(cell.threads), cell.numa);
  Meters meters(settings.machine_root);
  const auto needs = needs_before_planning(registry, cell);
  if (needs && tell) tell(*needs);
  auto opened = CellRun::open(registry, cell, settings.pin);
  m.isa = kernels::active_isa();
  if (!opened) return failed(m, Outcome::unsupported, opened.reason());
  CellRun& run = **opened;
  m.cost = run.cost();
  m.compute = run.variant().compute(run.problem());
  const Parameters specs = run.specs();
  m.parameter_bytes = parameter_bytes(specs);
  m.workspace_bytes = run.workspace_bytes();
  m.state_bytes = run.state_bytes();
  m.in_place = run.in_place();
  if (needs && tell && run.remote() == nullptr) {
    Needs planned = *needs;
    planned.workspace = m.workspace_bytes;
    tell(planned);
  }

  const ParameterSet<float> fitted = run.fitted();
  // What fit and plan left behind (scratch, generated code, small tables) is not the run's; parameters and workspace are.
  const bool peak_readable = reset_peak_resident();
  const index_t level = resident_bytes();
  run.equip(make_parameters(specs, cell.seed, fitted));
  const double first_begin_s = monotonic_s();
  run_and_record([&] { run.run(); }, settings, m);
  const double first_run_s = monotonic_s() - first_begin_s;
  m.peak_rss_bytes = peak_readable && level >= 0 ? std::max<index_t>(0, peak_resident_bytes() - level) : -1;
  if (run.remote() != nullptr) m.peak_rss_bytes = run.remote()->peak_bytes();

  const double checks_begin_s = monotonic_s();
  if (!settings.output_file.empty()) {
    if (Status written = save_output(run, settings.output_file); !written) return failed(m, Outcome::crashed, written.reason());
    m.output_file = settings.output_file;
  }
  check_cell(run, settings, m);
  if (m.outcome != Outcome::ok) return m;
  if (!settings.clock) return m;
  std::unique_ptr<CellRun> reference;
  if (!settings.against.empty()) {
    Outcome why = Outcome::ok;
    auto opened_reference = reference_of(run, registry, settings, why);
    if (!opened_reference) return failed(m, why, opened_reference.reason());
    reference = *std::move(opened_reference);
  }
  if (cell.cache == CacheState::cold) {  // what was metered is what the variant takes, without these copies
    if (Status cold = run.go_cold(); !cold) return failed(m, Outcome::unsupported, cold.reason());
    if (Status cold = reference ? reference->go_cold() : Status(); !cold) return failed(m, Outcome::unsupported, cold.reason());
  }
  const double checks_s = monotonic_s() - checks_begin_s;

  constexpr double warm_up_below_s = 1;  // a slower run has its caches and clocks warm from the first
  if (run.decodes() || first_run_s < warm_up_below_s) run_and_record([&] { run.again(); }, settings, m);
  m.setup_s = monotonic_s() - started_s - checks_s;
  // Entering the arena takes the better part of a microsecond, which is a short step's time, and a server does not leave it.
  const auto samples = [&] { take_samples(run, reference.get(), settings, m); };
  if (run.decodes()) {
    run.arena().execute(samples);
  } else {
    samples();
  }
  if (settings.gate && run.remote() == nullptr) m.meters = meters.of([&] { run.again(); });
  for (const Remote* guest : {run.remote(), reference ? reference->remote() : nullptr}) {
    if (Status agrees = guest != nullptr ? guest->clock_agrees() : Status(); !agrees)
      return failed(m, Outcome::crashed, agrees.reason());
  }
  note_remote(run, m);
  m.fma_gflops = quick_fma_gflops(run.arena());
  return m;
}

}  // namespace

Status save_output(const CellRun& run, const std::string& path) {
  const View<float, 4> out = run.output();
  return write_npy(path, out.extents(), {out.data_handle(), static_cast<std::size_t>(out.size())});
}

void check_cell(const CellRun& run, const Settings& settings, Measurement& m) {
  if (settings.gate) {
    m.note = run.note();
    m.variant_note = run.variant().note(run.problem(), run.arrays());
    if (run.layer_clock() == nullptr) {              // a layer's mixer sees projections of the input
      const CellRun::Sequence first = run.alone(0);  // stands for sequences of different lengths
      const bool one_length = run.lengths().empty();
      const AsFloats floats(one_length ? run.arrays() : first.arrays);
      m.placement = place(one_length ? run.problem() : first.problem, floats.views());
      m.placed = true;
    }
    m.gate = gate_of(run);
    if (!passed(m.gate)) {
      m.outcome = Outcome::inaccurate;
      m.reason = missed(m.gate) + where(run, m.gate);
      return;
    }
    measure_storage_error(run, m);
    if (const std::string why = run.trains() ? backward_on_twin(run) : ""; !why.empty()) {
      m.outcome = Outcome::inaccurate;
      m.reason = why;
      return;
    }
  }
  if (run.layer_clock() != nullptr) {
    m.fidelity.reason = "a whole layer: its distance to softmax attention says nothing";
    return;
  }
  if (!run.lengths().empty()) {
    m.fidelity.reason = "sequences of different lengths: ask for one length";
    return;
  }
  m.fidelity = measure_fidelity(run, settings.fidelity, settings.fidelity_seeds);
  if (settings.gate && m.fidelity.lost_seeds > 0) {
    m.outcome = Outcome::inaccurate;
    m.reason = "its output is finite under the cell's seed and not under " + std::to_string(m.fidelity.lost_seeds) + " of " +
               std::to_string(m.fidelity.seeds) + " seeds";
  }
}

Measurement measure_cell(const Registry& registry, const Cell& cell, const Settings& settings, double started_s,
                         const std::function<void(const Needs&)>& needs) {
  // The one place where exceptions of variants and libraries end.
  try {
    return measure(registry, cell, settings, started_s, needs);
  } catch (const RemoteError& e) {
    return failed({}, e.refused() ? Outcome::unsupported : Outcome::crashed, e.what());
  } catch (const std::bad_alloc&) {
    return failed({}, Outcome::out_of_memory, "an allocation was refused");
  } catch (const std::exception& e) {
    return failed({}, Outcome::crashed, std::string("exception: ") + e.what());
  } catch (...) {
    return failed({}, Outcome::crashed, "an exception that is no std::exception");
  }
}

}  // namespace attn
