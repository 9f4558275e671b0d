#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("efficient: the fast path is its definition") {
  for (const index_t n : {1, 2, 33, 64, 65, 509}) {
    const Trial t("efficient", square(n, n == 65 ? 40 : 64));
    INFO("N=" << n);
    CHECK(distance(t.run(), t.definition()) < 1e-5);
  }
  Problem p = square(100, 32, false, 4);
  p.kv_len = 257;
  p.kv_heads = 2;
  p.value_dim = 48;
  const Trial t("efficient", p);
  CHECK(distance(t.run(), t.definition()) < 1e-5);
  const Trial one_head("efficient", square(5000, 64, false, 1));
  CHECK(distance(one_head.run(4), one_head.run(1)) < 1e-6);
}

TEST_CASE("efficient: rows of weights sum to one, order of the keys does not matter") {
  Trial t("efficient", square(200));
  const auto before = t.run();
  t.k = flip(t.k, 2), t.v = flip(t.v, 2);
  CHECK(distance(t.run(), before) < 1e-5);
  t.v = ones<float>(t.v.shape());
  CHECK(distance(t.run(), t.v) < 1e-5);
}

TEST_CASE("efficient: equal keys give the mean; one huge key and large norms stay finite") {
  Trial same("efficient", square(100));
  same.k = full<float>(same.k.shape(), 0.3f);
  const auto mean_v = mean(cast<double>(same.v), 2, Keep::yes) + zeros<double>(same.v.shape());
  CHECK(distance(same.run(), mean_v) < 1e-5);
  for (const float scale : {40.0f, 1e4f, -1e4f}) {
    Trial t("efficient", square(100));
    t.q = t.q * scale, t.k = t.k * scale;
    CHECK(distance(t.run(), t.definition()) < 1e-2);
  }
  CHECK(refusal("efficient", square(10, 16, true)) != "");
}

TEST_CASE("efficient: denominators near zero, negative inputs and large norms stay finite") { check_stays_finite("efficient"); }
