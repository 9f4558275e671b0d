// Properties of runs: what they read and write, allocate and start, and that they repeat.
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "attn/prove/conformance_checker.hpp"

namespace attn::conformance {

namespace {

// Child processes, running or ended, that this process has not waited for, or has had.
bool has_children() {
  siginfo_t info{};
  return ::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

long faults_of_children() {
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  return usage.ru_minflt;
}

ParameterSet<float> copy_of(const ParameterSet<float>& parameters) {
  ParameterSet<float> copy;
  for (const auto& [name, tensor] : parameters.all())
    copy.set(name, Tensor<float>(Elements<float>(tensor.shape(), tensor.values())));
  return copy;
}

}  // namespace

void Checker::start_threads(const Arena& arena) const {
  arena.execute([&] { parallel_tasks(options_.threads, [](index_t, int) {}); });
}

void Checker::output() {
  const Arena arena(options_.threads);
  for_each_supported([&](const Problem& p) {
    for (const Layout layout : {Layout::dense, Layout::interleaved}) {
      begin(p, to_string(layout));
      const Case c = case_of(p, layout);
      const Planned planned = plan(p, options_.threads);
      const std::vector<float> on_zeros = output_of_run(planned, arena, c);
      c.fill_output(nan);
      planned.run(arena, c.arrays());
      if (!same_bits(on_zeros, c.output())) fail(p, "what the output held before is seen in it afterwards");
    }
  });
}

void Checker::bounds() {
  const Arena arena(options_.threads);
  for_each_supported([&](const Problem& p) {
    for (const auto& [border, words] : {std::pair{Border::guard_after, "nobody may touch what follows an array"},
                                        {Border::guard_before, "nobody may touch what precedes an array"}}) {
      begin(p, words);
      const Case c = case_of(p, Layout::dense, border);
      c.make_inputs_read_only();
      const Planned planned = plan(p, options_.threads, Workspace::Mode::checked);
      const ParameterSet<float> before = copy_of(planned.parameters());
      planned.run(arena, c.arrays());
      if (!planned.workspace().gaps_intact()) fail(p, "a booked scratch array was overrun");
      for (const auto& [name, tensor] : planned.parameters().all()) {
        if (!same_bits(tensor.values(), before[name].values())) fail(p, "parameter '" + name + "' was written to");
      }
    }
  });
}

void Checker::repeat() {
  const Arena arena(options_.threads);
  for_each_supported([&](const Problem& p) {
    begin(p);
    const Case c = case_of(p);
    const Planned planned = plan(p, options_.threads);
    const std::vector<float> first = output_of_run(planned, arena, c);
    for (int again = 0; again < 3; ++again) {
      if (!same_bits(first, output_of_run(planned, arena, c))) fail(p, "a second run of a plan gave other bits");
    }
    const Planned second = plan_trial(variant_, p, options_.threads);
    if (!same_bits(first, output_of_run(second, arena, c))) fail(p, "a second plan gave other bits");
  });
}

void Checker::threads() {
  std::map<std::string, std::vector<float>> alone;
  for (const int count : {1, std::max(2, options_.threads), 2 * options_.threads + 1}) {
    const Arena arena(count);
    for_each_supported([&](const Problem& p) {
      begin(p, "threads=" + std::to_string(count));
      const Case c = case_of(p);
      const Planned planned = plan(p, count);
      const std::vector<float> here = output_of_run(planned, arena, c);
      if (count == 1) {
        alone[attn::to_string(p)] = here;
        return;
      }
      const std::vector<float>& there = alone[attn::to_string(p)];
      const double allowed = compare_with_reference(reference(p), c.out).allowance_abs;
      double largest = 0;
      for (std::size_t i = 0; i < here.size(); ++i) {
        const double difference = std::abs(static_cast<double>(here[i]) - static_cast<double>(there[i]));
        if (std::isnan(here[i]) != std::isnan(there[i])) largest = infinity;
        if (difference > largest) largest = difference;
      }
      if (largest > allowed) {
        fail(p, std::to_string(count) + " threads differ from one by " + brief(largest) + ", allowed " + brief(allowed));
      }
    });
  }
}

void Checker::scratch() {
  const Arena arena(options_.threads);
  for_each_supported([&](const Problem& p) {
    begin(p);
    const Case c = case_of(p);
    Planned planned = plan(p, options_.threads);
    const std::vector<float> on_zeros = output_of_run(planned, arena, c);
    planned.grant(Workspace::Mode::checked);
    if (!same_bits(on_zeros, output_of_run(planned, arena, c))) fail(p, "scratch full of NaN changes the output");
  });
}

void Checker::allocations() {
  if (options_.meter == nullptr) return none("this program counts no allocations");
  const Arena arena(options_.threads);
  start_threads(arena);
  for_each_supported([&](const Problem& p) {
    begin(p);
    const Case c = case_of(p);
    const Planned planned = plan(p, options_.threads);
    // What a library sets up at its first call, once on each thread, is not the run's: the least of three runs counts.
    planned.run(arena, c.arrays());
    OutsideCalls calls;
    for (int run = 0; run == 0 || (run < 3 && calls.allocations != 0); ++run) {
      options_.meter->start();
      planned.run(arena, c.arrays());
      calls = options_.meter->stop();
    }
    if (calls.allocations != 0)
      fail(p, std::to_string(calls.allocations) + " allocations in a run, the first by " + calls.first_allocation_by);
  });
}

void Checker::arena() {
  if (options_.meter == nullptr) return none("this program counts no starts of threads");
  const Arena arena(options_.threads);
  start_threads(arena);
  const bool children_before = has_children();
  const long faults_before = faults_of_children();
  for_each_supported([&](const Problem& p) {
    begin(p);
    const Case c = case_of(p);
    options_.meter->start();
    const Planned planned = plan(p, options_.threads);
    planned.run(arena, c.arrays());
    planned.run(arena, c.arrays());
    const OutsideCalls calls = options_.meter->stop();
    if (calls.threads != 0) fail(p, std::to_string(calls.threads) + " threads started, the first by " + calls.first_thread_by);
    if (!children_before && has_children()) fail(p, "a process was started");
    if (faults_of_children() != faults_before) fail(p, "a process was started and has ended");
  });
}

}  // namespace attn::conformance
