#include <algorithm>
#include <thread>

#include "attn/cell/cell.hpp"
#include "attn/core/time.hpp"
#include "attn/measure/clock.hpp"
#include "attn/measure/machine.hpp"
#include "attn/measure/memory.hpp"
#include "attn/prove/sampled_rows.hpp"
#include "catch.hpp"

using namespace attn;

TEST_CASE("the clock returns one entry a sample and does not lose time") {
  int calls = 0;
  const double begin_s = monotonic_s();
  const auto samples = clock_samples(
      [&] {
        ++calls;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      },
      4, 0.001);
  const double took_s = monotonic_s() - begin_s;
  CHECK(samples.size() == 4);
  CHECK(calls >= 4);
  for (const double s : samples) CHECK((s >= 0.005 && s <= took_s));
}

TEST_CASE("short runs are repeated until a sample is long enough") {
  index_t calls = 0;
  const auto samples = clock_samples([&] { ++calls; }, 2, 0.005);
  CHECK(samples.size() == 2);
  CHECK(calls > 1000);
  for (const double s : samples) CHECK(s < 1e-4);
}

TEST_CASE("pairs of samples are taken in turn, and their ratio is that of the calls") {
  std::string order;
  const auto sleep = [&](char name, int ms) {
    if (order.empty() || order.back() != name) order += name;
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  };
  const PairedSamples pairs = clock_pairs([&] { sleep('a', 4); }, [&] { sleep('b', 12); }, 4, 0.001);
  REQUIRE(pairs.a_s.size() == 4);
  REQUIRE(pairs.b_s.size() == 4);
  CHECK(order == "abababa");  // each once to find its repetitions; then a b, b a, a b, b a
  for (std::size_t s = 0; s < 4; ++s) {
    CHECK(pairs.a_s[s] >= 0.004);
    CHECK(pairs.b_s[s] >= 0.012);
  }
}

TEST_CASE("the peak of resident memory rises with what is touched, and can be reset") {
  REQUIRE(reset_peak_resident());
  const index_t level = peak_resident_bytes();
  {
    const Buffer buffer(std::size_t{64} << 20);
    std::fill_n(buffer.as<char>(), buffer.bytes(), 'x');
  }
  CHECK(peak_resident_bytes() - level > index_t{60} << 20);
  REQUIRE(reset_peak_resident());
  CHECK(peak_resident_bytes() - level < index_t{32} << 20);
}

TEST_CASE("untouched memory is not resident") {
  const index_t level = resident_bytes();
  const Buffer buffer(std::size_t{256} << 20);
  CHECK(resident_bytes() - level < index_t{16} << 20);
}

TEST_CASE("the roof is the slowest of three terms") {
  const Peak peak{.fma_gflops = 100, .exp_gexps = 1, .read = {{1}, {10}}};
  CHECK(roof({.flops = 1e11, .bytes = 1, .exps = 1}, peak).binds == "flops");
  CHECK(roof({.flops = 1e11, .bytes = 1, .exps = 1}, peak).seconds == Approx(1.0));
  CHECK(roof({.flops = 1, .bytes = 1e11, .exps = 1}, peak).seconds == Approx(10.0));
  CHECK(roof({.flops = 1, .bytes = 1, .exps = 5e9}, peak).binds == "exps");
}

TEST_CASE("the roof of flops is the peak of what products are made with") {
  const Peak peak{.fma_gflops = 100, .exp_gexps = 1, .bf16_dot_gflops = 200, .read = {{1}, {10}}};
  CHECK(roof({.flops = 1e11}, peak).seconds == Approx(1.0));
  CHECK(roof({.flops = 1e11}, peak, {.compute = kernels::Compute::bf16_dot}).seconds == Approx(0.5));
  CHECK(roof({.flops = 1e11}, {}, {.compute = kernels::Compute::bf16_dot}).seconds == 0);  // not measured
  CHECK(peak_from_json(to_json(peak)).bf16_dot_gflops == 200);
}

TEST_CASE("bytes are held to the bandwidth of the cache that they fit, cold ones to memory's") {
  const Peak peak{.read = {{1e6, 1e8}, {50, 10}}, .update = {{1e6, 1e8}, {40, 8}}};
  const auto gbs = [&](double bytes, Manner manner) { return 1e-9 * bytes / roof({.bytes = bytes}, peak, manner).seconds; };
  CHECK(gbs(1e3, {}) == Approx(50));
  CHECK(gbs(1e9, {}) == Approx(10));
  CHECK(gbs(1e7, {}) == Approx(30));
  CHECK(gbs(1e3, {.cold = true}) == Approx(10));
  // A state of half as many bytes, read and written.
  CHECK(gbs(2e6, {.in_place = 2e6}) == Approx(40));
  CHECK(gbs(2e7, {.in_place = 2e7}) == Approx(24));
  CHECK(gbs(1e3, {.in_place = 1e3, .cold = true}) == Approx(8));
  // And tensors that are read besides: both lie in what there is of them together.
  CHECK(roof({.bytes = 2e7}, peak, {.in_place = 2e6}).seconds ==
        Approx(2e6 / 1e9 / peak.update.at(1.9e7) + 1.8e7 / 1e9 / peak.read.at(1.9e7)));
  CHECK(roof({.bytes = 1e6}, {}).seconds == 0);  // nothing was measured
}

TEST_CASE("sampled rows are ascending, distinct and hold both ends") {
  const auto rows = sampled_rows(5000, 64);
  CHECK(rows.size() == 64);
  CHECK((rows.front() == 0 && rows.back() == 4999));
  CHECK(std::adjacent_find(rows.begin(), rows.end(), std::greater_equal<>()) == rows.end());
  CHECK(sampled_rows(3, 64) == std::vector<index_t>{0, 1, 2});
}

TEST_CASE("cells and measurements survive the process boundary") {
  Cell cell{.variant = "local:left=3",
            .problem = {.q_len = 7, .causal = true},
            .input = "text",
            .seed = 9,
            .threads = 2,
            .isa = "scalar",
            .scope = Scope::layer,
            .cache = CacheState::cold};
  Settings settings{.samples = 5, .pin = false};
  Cell cell_back;
  Settings settings_back;
  from_json(to_json(cell, settings), cell_back, settings_back);
  CHECK((cell_back.variant == cell.variant && cell_back.problem == cell.problem && cell_back.seed == 9 &&
         cell_back.isa == "scalar" && cell_back.scope == Scope::layer && cell_back.cache == CacheState::cold));
  CHECK((settings_back.samples == 5 && !settings_back.pin));

  Measurement m;
  m.outcome = Outcome::timed_out;
  m.reason = "why \xff not";  // no UTF-8: a plugin's words may be anything
  m.samples_s = {1.5, 2.5};
  m.append_s = {0.5};
  m.state_bytes = 17;
  m.in_place = true;
  m.mixer_share = 0.25;
  const Measurement back = measurement_from_json(to_json(m));
  CHECK((back.outcome == Outcome::timed_out && back.samples_s == m.samples_s && back.mixer_share == 0.25));
  CHECK((back.append_s == m.append_s && back.state_bytes == 17 && back.in_place));
  CHECK_THROWS(measurement_from_json(to_json(m).substr(0, 40)));
}
