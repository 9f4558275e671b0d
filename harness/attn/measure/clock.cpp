#include "attn/measure/clock.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>

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

}  // namespace

std::vector<double> clock_samples(FunctionRef<void()> call, int samples, double sample_min_s) {
  return collect_for(call, samples, sample_min_s).samples_s;
}

PairedSamples clock_pairs(FunctionRef<void()> a, FunctionRef<void()> b, int samples, double sample_min_s) {
  struct Side {
    FunctionRef<void()> call;
    benchmark::IterationCount iterations;
    std::vector<double> samples_s;
    void sample() {
      const auto taken = collect(call, [&](benchmark::internal::Benchmark* one) { one->Iterations(iterations); });
      samples_s.insert(samples_s.end(), taken.samples_s.begin(), taken.samples_s.end());
    }
  };
  Side sides[] = {{a, collect_for(a, 1, sample_min_s).iterations, {}}, {b, collect_for(b, 1, sample_min_s).iterations, {}}};
  for (int s = 0; s < samples; ++s) {
    sides[s % 2].sample();
    sides[1 - s % 2].sample();
  }
  return {std::move(sides[0].samples_s), std::move(sides[1].samples_s)};
}

}  // namespace attn
