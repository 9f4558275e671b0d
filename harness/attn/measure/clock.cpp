#include "attn/measure/clock.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>

#include "attn/core/time.hpp"

namespace attn {

namespace {

class Collector : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration) continue;
      samples_s.push_back(run.real_accumulated_time / static_cast<double>(run.iterations));
      iterations = run.iterations;
    }
  }
  std::vector<double> samples_s;
  benchmark::IterationCount iterations = 1;  // of the last sample
};

// `set` says how many samples of what length.
template <class Set>
Collector collect(FunctionRef<void()> call, Set set) {
  set(benchmark::RegisterBenchmark("cell", [&](benchmark::State& state) {
        for ([[maybe_unused]] auto _ : state) call();
      })->UseRealTime());
  Collector collector;
  benchmark::RunSpecifiedBenchmarks(&collector, "cell");
  benchmark::ClearRegisteredBenchmarks();
  return collector;
}

Collector collect_for(FunctionRef<void()> call, int samples, double sample_min_s) {
  return collect(call, [&](benchmark::internal::Benchmark* b) {
    b->Repetitions(samples)->MinTime(std::max(sample_min_s, 1e-9));  // it asserts more than 0
  });
}

// So many runs of a guest that a sample lasts, by this process's clock: what the guest says of its own is yet to be believed.
index_t runs_of_guest(Remote& guest, double sample_min_s) {
  constexpr index_t fastest_growth = 10;
  for (index_t times = 1;;) {
    const double begin_s = monotonic_s();
    guest.runs(times);
    const double took_s = monotonic_s() - begin_s;
    if (took_s >= sample_min_s) return times;
    const double wanted = std::ceil(1.2 * static_cast<double>(times) * sample_min_s / took_s);
    times = std::clamp(static_cast<index_t>(wanted), times + 1, fastest_growth * times);
  }
}

// One of two that are sampled in turn, as often in every sample.
class Side {
 public:
  Side(Clocked what, double sample_min_s)
      : what_(what),
        iterations_(what.guest != nullptr ? runs_of_guest(*what.guest, sample_min_s)
                                          : collect_for(what.call, 1, sample_min_s).iterations) {}
  void sample() {
    if (what_.guest != nullptr) {
      samples_s.push_back(what_.guest->runs(iterations_) / static_cast<double>(iterations_));
      return;
    }
    const auto taken = collect(what_.call, [&](benchmark::internal::Benchmark* one) { one->Iterations(iterations_); });
    samples_s.insert(samples_s.end(), taken.samples_s.begin(), taken.samples_s.end());
  }
  std::vector<double> samples_s;

 private:
  Clocked what_;
  benchmark::IterationCount iterations_;
};

}  // namespace

std::vector<double> clock_samples(Clocked what, int samples, double sample_min_s) {
  if (what.guest == nullptr) return collect_for(what.call, samples, sample_min_s).samples_s;
  Side side(what, sample_min_s);
  for (int s = 0; s < samples; ++s) side.sample();
  return std::move(side.samples_s);
}

PairedSamples clock_pairs(Clocked a, Clocked b, int samples, double sample_min_s) {
  Side sides[] = {{a, sample_min_s}, {b, sample_min_s}};
  for (int s = 0; s < samples; ++s) {
    sides[s % 2].sample();
    sides[1 - s % 2].sample();
  }
  return {std::move(sides[0].samples_s), std::move(sides[1].samples_s)};
}

}  // namespace attn
