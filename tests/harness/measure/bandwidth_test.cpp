#include "attn/measure/bandwidth.hpp"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "attn/kernels/machine/isa.hpp"
#include "attn/kernels/machine/probes.hpp"
#include "catch.hpp"

using namespace attn;

TEST_CASE("bandwidth between two footprints is linear in the logarithm, and beyond them as at the ends") {
  const BandwidthCurve curve = bandwidth_curve({1e4, 1e6, 1e8}, {100, 60, 20});
  CHECK(curve.at(1) == 100);
  CHECK(curve.at(1e4) == 100);
  CHECK(curve.at(1e5) == Approx(80));
  CHECK(curve.at(1e6) == Approx(60));
  CHECK(curve.at(1e7) == Approx(40));
  CHECK(curve.at(1e12) == 20);
  CHECK(BandwidthCurve().at(1e6) == 0);
}

TEST_CASE("a disturbed small footprint does not lower the roof below what a larger one reached") {
  const BandwidthCurve curve = bandwidth_curve({1, 2, 4, 8}, {90, 30, 50, 20});
  CHECK(curve.gbs == std::vector<double>{90, 50, 50, 20});
  for (double x = 0.5; x < 20; x *= 1.1) CHECK(curve.at(x) >= curve.at(1.1 * x));
}

TEST_CASE("reading, updating and gathering are measured from a first cache to beyond the last one") {
  for (const int threads : {1, 2}) {
    const Arena arena(threads);
    for (const BandwidthCurve& curve :
         {measure_read_bandwidth(arena), measure_update_bandwidth(arena), measure_gather_bandwidth(arena)}) {
      REQUIRE(curve.bytes.size() == curve.gbs.size());
      CHECK(curve.bytes.front() <= 64 << 10);
      CHECK(curve.bytes.back() >= 64 << 20);
      CHECK(std::is_sorted(curve.bytes.begin(), curve.bytes.end(), std::less_equal<>()));
      CHECK(std::is_sorted(curve.gbs.begin(), curve.gbs.end(), std::greater<>()));
      CHECK(curve.gbs.back() > 0);
    }
  }
}

TEST_CASE("probes of reading and updating go through whole buffers, on every instruction set") {
  using namespace kernels;
  std::vector<float> ones(4096, 1.0f), zeros(4096, 0.0f);
  for (const std::string& isa : available_isas()) {
    REQUIRE(force_isa(isa));
    for (const index_t ahead : {0, 2048}) CHECK(probe_read(ones, ahead) == 4.0 * 4096);
    for (const index_t ahead : {0, 3}) CHECK(probe_gather(ones, std::vector<std::int32_t>{63, 0, 7, 7, 1}, ahead) == 5 * 256);
    CHECK(probe_update(zeros) == 8.0 * 4096);
    CHECK(probe_update(ones) == 8.0 * 4096);
  }
  REQUIRE(force_isa(""));
  for (const float x : zeros) REQUIRE(x > 0);
  for (const float x : ones) REQUIRE(x == Approx(1.0f));
}
