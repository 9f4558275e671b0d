#include "attn/measure/clock.hpp"

#include <benchmark/benchmark.h>
#include <time.h>

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
    }
  }
  std::vector<double> samples_s;
};

}  // namespace

std::vector<double> clock_samples(FunctionRef<void()> call, int samples, double sample_min_s) {
  benchmark::RegisterBenchmark("cell",
                               [&](benchmark::State& state) {
                                 for ([[maybe_unused]] auto _ : state) call();
                               })
      ->UseRealTime()
      ->Repetitions(samples)
      ->MinTime(std::max(sample_min_s, 1e-9));  // it asserts more than 0
  Collector collector;
  benchmark::RunSpecifiedBenchmarks(&collector, "cell");
  benchmark::ClearRegisteredBenchmarks();
  return std::move(collector.samples_s);
}

double monotonic_s() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace attn
