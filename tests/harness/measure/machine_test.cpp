#include "attn/measure/machine.hpp"

#include "attn/core/time.hpp"
#include "attn/exec/limits.hpp"
#include "attn/kernels/machine/compute.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/kernels/machine/probes.hpp"
#include "attn/measure/memory.hpp"
#include "catch.hpp"

using namespace attn;

// Whatever else runs, no thread is faster than one that has a processor: its rate by its own processor time.
TEST_CASE("peaks are those of all threads together, in units of 1e9 a second") {
  double alone = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const double begin_s = thread_cpu_s();
    const double flops = kernels::probe_fma(1'000'000);
    alone = std::max(alone, 1e-9 * flops / (thread_cpu_s() - begin_s));
  }
  for (const int threads : {1, 2}) {
    const Arena arena(threads);
    const Peak peak = measure_peak(arena, false);
    INFO(threads << " threads: " << peak.fma_gflops << " GFLOP/s, " << peak.exp_gexps << " Gexp/s; one alone " << alone);
    CHECK(peak.isa == kernels::active_isa());
    CHECK(peak.threads == threads);
    CHECK(peak.fma_gflops_median <= peak.fma_gflops);
    CHECK(peak.fma_gflops_median > 0);
    CHECK((peak.bf16_dot_gflops > 0) == kernels::has_bf16_dot());
    CHECK((peak.read.bytes.empty() && peak.update.bytes.empty() && peak.triad_gbs == 0));
    if (kernels::active_isa() == "scalar") continue;
    CHECK(peak.fma_gflops < 1.3 * threads * alone);
    CHECK(peak.fma_gflops > 0.02 * alone);
    CHECK((peak.exp_gexps > 1e-4 * alone && peak.exp_gexps < 0.2 * threads * alone));  // a dozen operations and more each
    CHECK(quick_fma_gflops(arena) < 1.3 * threads * alone);
    CHECK(quick_fma_gflops(arena) > 0.002 * alone);
  }
}

TEST_CASE("bandwidths belong to the peaks where they are asked for") {
  const Peak peak = measure_peak(Arena(1), true);
  for (const BandwidthCurve* curve : {&peak.read, &peak.update}) {
    REQUIRE(!curve->bytes.empty());
    CHECK(curve->gbs.back() > 0);
  }
  CHECK(peak.triad_gbs > 0);
}

TEST_CASE("peaks cross to another process whole") {
  const Peak peak{.isa = "avx2",
                  .threads = 3,
                  .fma_gflops = 1.5,
                  .exp_gexps = 2.5,
                  .triad_gbs = 3.5,
                  .fma_gflops_median = 1.25,
                  .bf16_dot_gflops = 4.5,
                  .read = {{1, 2}, {30, 20}},
                  .update = {{3}, {40}}};
  const Peak back = peak_from_json(to_json(peak));
  CHECK((back.isa == "avx2" && back.threads == 3 && back.fma_gflops == 1.5 && back.exp_gexps == 2.5 && back.triad_gbs == 3.5));
  CHECK((back.fma_gflops_median == 1.25 && back.bf16_dot_gflops == 4.5));
  CHECK((back.read.bytes == peak.read.bytes && back.read.gbs == peak.read.gbs));
  CHECK((back.update.bytes == peak.update.bytes && back.update.gbs == peak.update.gbs));
}

TEST_CASE("a cell may take four fifths of the memory that there is") {
  double share = 0;
  for (int attempt = 0; attempt < 10 && !(share > 0.78 && share < 0.82); ++attempt)  // others take and give back meanwhile
    share = static_cast<double>(default_memory_limit_bytes()) / static_cast<double>(available_memory_bytes());
  CHECK(share == Approx(0.8).epsilon(0.025));
}
