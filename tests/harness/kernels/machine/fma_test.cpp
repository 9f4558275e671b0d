// That the probe of multiply-adds tells what the machine does: a large product's speed is a share of it that products are known to reach.
#include <algorithm>
#include <limits>
#include <vector>

#include "attn/core/sanitizer.hpp"
#include "attn/core/time.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "attn/kernels/machine/probes.hpp"
#include "catch.hpp"

using namespace attn;
using namespace attn::kernels;

namespace {

template <class F>
double least_cpu_s(int runs, F call) {
  double least_s = std::numeric_limits<double>::infinity();
  for (int run = 0; run < runs; ++run) {
    const double begin_s = thread_cpu_s();
    call();
    least_s = std::min(least_s, thread_cpu_s() - begin_s);
  }
  return least_s;
}

}  // namespace

// A product cannot be faster than multiply-adds, so counted twice they put it at half of the probe at most, and counted half above it.
// Processor time, the least of several runs, in turns: another's work on the machine only makes either slower.
TEST_CASE("a large product reaches more than half of what the probe of multiply-adds tells, and no more than it", "[kernels]") {
#if defined(ATTN_ANY_SANITIZER)
  return;  // what looks at every load of a product slows the probe by nothing
#endif
  if (active_isa() == "scalar") return;  // products of one lane wait for their loads
  constexpr index_t n = 384;
  const std::vector<float> a(n * n, 0.5f), b(n * n, 0.25f);
  std::vector<float> c(n * n);
  double product = 0, probe = 0;
  for (int turn = 0; turn < 20 && !(product > 0.55 * probe && product < 1.1 * probe && turn >= 2); ++turn) {
    const double product_s = least_cpu_s(5, [&] { gemm(n, n, n, {a.data(), n}, {b.data(), n}, {c.data(), n}); });
    product = std::max(product, 2.0 * n * n * n / product_s);
    double flops = 0;
    const double probe_s = least_cpu_s(5, [&] { flops = probe_fma(100'000); });
    probe = std::max(probe, flops / probe_s);
  }
  CHECK(product > 0.55 * probe);
  CHECK(product < 1.1 * probe);
}
