// What follows from samples, work and peaks, by hand.
#include <cmath>
#include <limits>

#include "attn/record/column_list.hpp"
#include "attn/record/row.hpp"
#include "attn/record/statistics.hpp"
#include "catch.hpp"

using namespace attn;

namespace {

std::vector<double> one_to(int n) {
  std::vector<double> values;
  for (int i = 1; i <= n; ++i) values.push_back(i);
  return values;
}

Figures figures(const Measurement& m, const Peak& peak = {}, const Problem& p = {}) {
  return make_row({.variant = "full", .problem = p, .input = "iid:1"}, m, peak).figures;
}

}  // namespace

// Ranks of the 95 % interval as tables of the sign test have them: the largest k with 2 P(Binomial(n, 1/2) < k) <= 0.05, and n + 1 - k.
TEST_CASE("the interval of the median has the ranks of the sign test's table") {
  struct Ranks {
    int n, low, high;
  };
  for (const Ranks& ranks : {Ranks{2, 1, 2},
                             {6, 1, 6},
                             {8, 1, 8},
                             {9, 2, 8},
                             {12, 3, 10},
                             {15, 4, 12},
                             {17, 5, 13},
                             {20, 6, 15},
                             {25, 8, 18},
                             {100, 40, 61}}) {
    const Interval interval = median_interval(one_to(ranks.n));
    INFO("n=" << ranks.n);
    CHECK(interval.low == ranks.low);
    CHECK(interval.high == ranks.high);
  }
  CHECK(median(one_to(100)) == 50.5);
  CHECK(median_absolute_deviation({1, 1, 2, 2, 4, 6, 9}) == 1);
}

TEST_CASE("figures are those of the samples, and of the work over them") {
  Measurement m;
  m.samples_s = {0.5, 0.25, 1.0};
  m.cost = {.flops = 3e9, .bytes = 1e9, .exps = 1};
  const Figures f = figures(m, {.fma_gflops = 12, .read = {{1}, {8}}});
  CHECK(f.time_median_s == 0.5);
  CHECK(f.time_mad_s == 0.25);
  CHECK(f.time_min_s == 0.25);
  CHECK(f.time_ci_low_s == 0.25);
  CHECK(f.time_ci_high_s == 1.0);
  CHECK(f.unstable == 1);
  CHECK(f.gflops_per_s.value() == Approx(6));
  CHECK(f.gbytes_per_s.value() == Approx(2));
  CHECK(f.ideal_time_s.value() == Approx(0.25));
  CHECK(f.roof_binds == "flops");
  CHECK(f.roof_fraction.value() == Approx(0.5));
  CHECK(f.peak_fma_gflops == 12);
  CHECK_FALSE(f.peak_bf16_dot_gflops);
  CHECK_FALSE(f.tokens_per_s);
  CHECK_FALSE(f.append_s);
  CHECK_FALSE(f.ratio_median);
}

TEST_CASE("a time is unstable where its interval is wider than a tenth of the median") {
  Measurement m;
  m.samples_s = {1, 0.9375, 1.03125};
  CHECK(figures(m).unstable == 0);
  m.samples_s = {1, 0.9375, 1.0625};
  CHECK(figures(m).unstable == 1);
}

TEST_CASE("a ratio is the median over pairs, not that of the medians") {
  Measurement m;
  m.samples_s = {1, 10, 12};
  m.against_s = {4, 5, 4};
  const Figures f = figures(m);
  CHECK(f.ratio_median == 2);
  CHECK(f.ratio_ci_low == 0.25);
  CHECK(f.ratio_ci_high == 3);
  m.against_s = {4};  // what has no neighbour is in no pair
  CHECK(figures(m).ratio_median == 0.25);
}

TEST_CASE("what follows from nothing is empty") {
  Measurement m;
  Figures f = figures(m);
  CHECK_FALSE((f.time_median_s || f.ideal_time_s || f.peak_fma_gflops || f.unstable));
  m.cost.bytes = 16e9;
  f = figures(m, {.fma_gflops = 1, .read = {{1}, {8}}});
  CHECK(f.ideal_time_s.value() == Approx(2));
  CHECK(f.roof_binds == "bytes");
  CHECK_FALSE(f.roof_fraction);
}

TEST_CASE("both peaks rise with the clock that drives them") {
  Measurement m;
  m.samples_s = {1};
  m.fma_gflops = 6;
  const Figures f = figures(m, {.fma_gflops = 4, .bf16_dot_gflops = 10});
  CHECK(f.peak_fma_gflops == 6);
  CHECK(f.peak_bf16_dot_gflops.value() == Approx(15));
  m.fma_gflops = 2;
  CHECK(figures(m, {.fma_gflops = 4, .bf16_dot_gflops = 10}).peak_bf16_dot_gflops == 10);
}

TEST_CASE("a row is timed if it ran to the end and was clocked") {
  Row row;
  CHECK_FALSE(timed(row));
  row.measurement.samples_s = {1};
  CHECK(timed(row));
  row.measurement.outcome = Outcome::crashed;
  CHECK_FALSE(timed(row));
}

TEST_CASE("meters that say nothing agree with what is small, and both sides of a tenth count") {
  Measurement m;
  m.peak_rss_bytes = 0;
  CHECK(meters_agree(m));
  m.peak_rss_bytes = index_t{4} << 20;
  CHECK(meters_agree(m));
  ++m.peak_rss_bytes;
  CHECK_FALSE(meters_agree(m));
  m.workspace_bytes = index_t{60} << 20, m.parameter_bytes = index_t{40} << 20;
  m.peak_rss_bytes = index_t{87} << 20;
  CHECK(meters_agree(m));
  m.peak_rss_bytes = index_t{85} << 20;
  CHECK_FALSE(meters_agree(m));
}

TEST_CASE("a field has six digits, and is read as what it says or not at all") {
  CHECK(print_field(1.0 / 3) == "0.333333");
  CHECK(print_field(std::numeric_limits<double>::max()) == "inf");
  CHECK(print_field(-std::numeric_limits<double>::max()) == "-inf");
  CHECK(print_list({1, 0.5}) == "1;0.5");
  CHECK(print_list({}).empty());
  std::vector<double> list = {7};
  CHECK((read_list("1;0.5", list) && list == std::vector<double>{1, 0.5}));
  CHECK((read_list("", list) && list.empty()));
  CHECK_FALSE(read_list("1;x", list));
  bool yes = false;
  CHECK((read_field("1", yes) && yes && read_field("0", yes) && !yes));
  CHECK_FALSE(read_field("2", yes));
  int small = 0;
  CHECK((read_field("2147483647", small) && small == 2147483647));
  CHECK_FALSE(read_field("2147483648", small));
}
