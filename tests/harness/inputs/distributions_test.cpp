// Each law has the property it is named after; numbers from the formulas of distributions.cpp.
#include <cmath>

#include "support.hpp"

using namespace attn;

namespace {

double variance(const View<float, 4>& view) {
  double sum = 0;
  for (const float x : values(view)) sum += static_cast<double>(x) * static_cast<double>(x);
  return sum / static_cast<double>(view.size());
}

double dot(const float* a, const float* b, index_t size) {
  double sum = 0;
  for (index_t d = 0; d < size; ++d) sum += static_cast<double>(a[d]) * static_cast<double>(b[d]);
  return sum;
}

}  // namespace

TEST_CASE("iid: logits of standard deviation tau") {
  for (const double tau : {0.25, 1.0, 3.0}) {
    const Problem p = problem(1024);
    const Tensors t = make("iid:" + std::to_string(tau), p);
    REQUIRE(variance(t.q) == Approx(tau).epsilon(0.02));
    REQUIRE(variance(t.k) == Approx(tau).epsilon(0.02));
    REQUIRE(variance(t.v) == Approx(1).epsilon(0.02));
    const Placement at = place(p, t);
    REQUIRE(at.logit_std == Approx(tau).epsilon(0.05));
    // row entropy = ln N - tau^2/2 where that is not near 0: section 3.2
    if (tau <= 1) REQUIRE(at.perplexity == Approx(std::exp(-tau * tau / 2)).epsilon(0.05));
  }
}

TEST_CASE("rows that see no key do not count in the placement") {
  const Problem p{.heads = 1,
                  .kv_heads = 1,
                  .q_len = 64,
                  .kv_len = 2,
                  .head_dim = 8,
                  .value_dim = 8,
                  .causal = true};  // row 62 sees key 0, row 63 both
  const Tensors t = make("iid:1", p);
  const auto logit = [&](index_t key) { return dot(t.q[0][0].row(63), t.k[0][0].row(key), 8) / std::sqrt(8.0); };
  const double first = 1 / (1 + std::exp(logit(1) - logit(0)));
  CHECK(place(p, t).sink_mass == Approx((1 + first) / 2));
}

TEST_CASE("lowrank: r dimensions, logits of deviation tau") {
  const Problem p = problem(1024);
  const Tensors t = make("lowrank:8,3", p);
  REQUIRE(place(p, t).logit_std == Approx(3).epsilon(0.15));
  // Nine rows of one head are linearly dependent: Gram-Schmidt leaves nothing of the ninth.
  std::vector<std::vector<double>> rows;
  for (index_t i = 0; i < 9; ++i) {
    std::vector<double> row(t.k[0][1].row(i), t.k[0][1].row(i) + 64);
    double before = 0, after = 0;
    for (const double x : row) before += x * x;
    for (const auto& other : rows) {
      double projection = 0;
      for (std::size_t d = 0; d < 64; ++d) projection += row[d] * other[d];
      for (std::size_t d = 0; d < 64; ++d) row[d] -= projection * other[d];
    }
    for (const double x : row) after += x * x;
    if (i == 8) {
      REQUIRE(after < 1e-8 * before);
    } else {
      REQUIRE(after > 1e-4 * before);
      for (double& x : row) x /= std::sqrt(after);
      rows.push_back(row);
    }
  }
}

TEST_CASE("cluster: few keys hold most of the mass, values agree inside a cluster") {
  const Problem p = problem(1024, 8);
  const Tensors t = make("cluster", p);
  const Placement at = place(p, t);
  REQUIRE(at.top32_mass == Approx(0.73).margin(0.08));
  REQUIRE(at.perplexity == Approx(0.07).margin(0.02));
  REQUIRE(variance(t.v) == Approx(1).epsilon(0.1));
  // Keys j with logit k_0.k_j/sqrt(d) above g/2 share the cluster of key 0: 1 in 16, and their values correlate by rho.
  double members = 0, correlation = 0;
  for (index_t j = 1; j < 1024; ++j) {
    if (dot(t.k[0][0].row(0), t.k[0][0].row(j), 64) / 8 < 3) continue;
    ++members;
    correlation += dot(t.v[0][0].row(0), t.v[0][0].row(j), 64) / 64;
  }
  REQUIRE(members == Approx(64).margin(30));
  REQUIRE(correlation / members == Approx(0.7).margin(0.3));
}

TEST_CASE("local: mean logit falls off as g exp(-distance/lambda); values are smooth") {
  const Problem p = problem(1024, 64);
  const Tensors t = make("local:24,8", p);
  for (const index_t distance : {0, 12, 24, 96}) {
    double mean = 0;
    index_t count = 0;
    for (index_t h = 0; h < 64; ++h) {
      for (index_t i = 0; i + distance < 1024; i += 16, ++count) mean += dot(t.q[0][h].row(i), t.k[0][h].row(i + distance), 64) / 8;
    }
    mean /= static_cast<double>(count);
    REQUIRE(mean == Approx(8 * std::exp(-static_cast<double>(distance) / 24)).margin(0.5));
  }
  double neighbour = 0;
  for (index_t i = 0; i < 1023; ++i) neighbour += dot(t.v[0][3].row(i), t.v[0][3].row(i + 1), 64) / (1023 * 64);
  REQUIRE(neighbour == Approx(0.9).margin(0.05));
}

TEST_CASE("local: queries of a shorter sequence stand at its end") {
  Problem p = problem(512);
  p.q_len = 16;
  const Tensors t = make("local:8,40", p);
  for (index_t i = 0; i < 16; ++i) {
    index_t best = 0;
    const float* q = t.q[0][0].row(i);
    for (index_t j = 0; j < 512; ++j) {
      if (dot(q, t.k[0][0].row(j), 64) > dot(q, t.k[0][0].row(best), 64)) best = j;
    }
    REQUIRE(std::abs(best - p.query_position(i)) <= 2);
  }
}

TEST_CASE("sink: key 0 takes about the mass asked for, and a quiet value") {
  for (const double mass : {0.3, 0.6}) {
    for (const index_t n : {256, 4096}) {
      const Problem p = problem(n, 8);
      const Tensors t = make("sink:" + std::to_string(mass) + ",1", p);
      REQUIRE(place(p, t).sink_mass == Approx(mass).margin(0.06));
      // every row sees it with one logit
      for (const index_t row : {n / 3, n - 1})
        REQUIRE(dot(t.q[0][1].row(row), t.k[0][1].row(0), 64) == Approx(dot(t.q[0][1].row(0), t.k[0][1].row(0), 64)));
      REQUIRE(dot(t.v[0][0].row(0), t.v[0][0].row(0), 64) == Approx(64 * 0.0025).epsilon(0.6));
    }
  }
}

TEST_CASE("heavy: a few columns hold the mass of every row") {
  const Problem p = problem(1024, 8);
  const Tensors t = make("heavy", p);
  const Placement at = place(p, t);
  REQUIRE(at.top32_mass == Approx(0.96).margin(0.04));
  REQUIRE(at.perplexity == Approx(0.011).margin(0.006));
  // gains are Exp(alpha) cut at 12: the share of keys at the cut is exp(-0.6*12)
  double cut = 0, mean = 0;
  for (index_t h = 0; h < 8; ++h) {
    for (index_t j = 0; j < 1024; ++j) {
      const double gain = static_cast<double>(t.q(0, h, 0, 0) * t.k(0, h, j, 0)) / 8;
      mean += gain / 8192;
      cut += gain > 11.99 ? 1.0 / 8192 : 0;
    }
  }
  REQUIRE(mean == Approx((1 - std::exp(-7.2)) / 0.6).epsilon(0.05));
  REQUIRE(cut < 0.003);
}

TEST_CASE("needle: one key a row, and a visible one under causality") {
  Problem p = problem(1024, 8);
  REQUIRE(place(p, make("needle", p)).perplexity == Approx(0.002).margin(0.001));
  p.causal = true;
  const Tensors t = make("needle", p);
  for (index_t i = 0; i < 1024; i += 50) {
    double best = 0;
    for (index_t j = 0; j <= i; ++j) best = std::max(best, dot(t.q[0][0].row(i), t.k[0][0].row(j), 64) / 8);
    REQUIRE(best == Approx(12).epsilon(0.5));
  }
}
