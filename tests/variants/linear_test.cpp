#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("linear: the fast path is its definition") {
  for (const bool causal : {false, true}) {
    for (const index_t n : {1, 2, 31, 32, 33, 63, 64, 65, 509}) {
      for (const index_t d : {1, 16, 33, 64, 80}) {
        const Trial t("linear", square(n, d, causal));
        INFO("N=" << n << " D=" << d << " causal=" << causal);
        CHECK(distance(t.run(), t.definition()) < 1e-5);
      }
    }
  }
}

TEST_CASE("linear: sequences of different lengths end together, heads may share keys") {
  for (const bool causal : {false, true}) {
    for (const auto& [queries, keys] : {std::pair<index_t, index_t>{100, 300}, {300, 100}, {1, 200}, {37, 64}, {64, 37}}) {
      Problem p = square(queries, 32, causal, 4);
      p.kv_len = keys;
      p.kv_heads = 2;
      p.value_dim = 48;
      const Trial t("linear", p);
      INFO(to_string(p));
      CHECK(distance(t.run(), t.definition()) < 1e-5);
    }
  }
}

TEST_CASE("linear: one head over four threads gives what one thread gives, and always the same bits") {
  for (const bool causal : {false, true}) {
    const Trial t("linear", square(5000, 64, causal, 1));
    const auto alone = t.run(1), shared = t.run(4);
    CHECK(distance(shared, alone) < 1e-6);
    CHECK(std::ranges::equal(shared.values(), t.run(4).values()));
  }
}

TEST_CASE("linear: values of one give one, equal keys give the mean") {
  Trial t("linear", square(200));
  t.v = ones<float>(t.v.shape());
  CHECK(distance(t.run(), t.v) < 1e-6);
  Trial same("linear", square(200));
  same.k = full<float>(same.k.shape(), 0.3f);
  const auto out = same.run();
  const auto mean_v = mean(cast<double>(same.v), 2, Keep::yes) + zeros<double>(same.v.shape());
  CHECK(distance(out, mean_v) < 1e-5);
}

TEST_CASE("linear: by hand") {
  // phi(0) = 1, phi(1) = 2: weights of query 0 over keys (0, 1) are 1 and 2.
  Trial t("linear", square(2, 1, false, 1));
  t.q = Tensor<float>({1, 1, 2, 1}, {0, 1});
  t.k = t.q;
  t.v = Tensor<float>({1, 1, 2, 1}, {3, 6});
  CHECK(t.run()(0, 0, 0, 0) == Approx(5));
  CHECK(t.run()(0, 0, 1, 0) == Approx(5));
  Trial causal("linear", square(2, 1, true, 1));
  causal.q = t.q, causal.k = t.k, causal.v = t.v;
  CHECK(causal.run()(0, 0, 0, 0) == Approx(3));
  CHECK(causal.run()(0, 0, 1, 0) == Approx(5));
}

TEST_CASE("linear: denominators near zero, negative inputs and large norms stay finite") { check_stays_finite("linear"); }

// e^-200 is 0 in float: what is left of the denominator is the guard, and of the sum nothing.
TEST_CASE("linear: where all features vanish the output is zero") {
  Trial t("linear", square(50));
  t.q = full<float>(t.q.shape(), -200.0f);
  const auto out = t.run();
  for (const float value : out.values()) CHECK(value == 0.0f);
}
