#include <numbers>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("cosformer: the fast path is its definition") {
  for (const bool causal : {false, true}) {
    for (const index_t n : {1, 2, 31, 33, 64, 65, 509}) {
      const Trial t("cosformer", square(n, n == 65 ? 40 : 64, causal));
      INFO("N=" << n << " causal=" << causal);
      CHECK(distance(t.run(), t.definition()) < 1e-5);
    }
    for (const auto& [queries, keys] : {std::pair<index_t, index_t>{100, 300}, {300, 100}}) {
      Problem p = square(queries, 32, causal, 4);
      p.kv_len = keys;
      p.kv_heads = 2;
      const Trial t("cosformer", p);
      CHECK(distance(t.run(), t.definition()) < 1e-5);
    }
  }
}

TEST_CASE("cosformer: by hand") {
  // Two tokens, q = k = 1: weights cos 0 and cos(pi/4).
  Trial t("cosformer", square(2, 1, false, 1));
  t.q = t.k = ones<float>({1, 1, 2, 1});
  t.v = Tensor<float>({1, 1, 2, 1}, {1, 0});
  const double near = std::cos(std::numbers::pi / 4);
  CHECK(static_cast<double>(t.run()(0, 0, 0, 0)) == Approx(1 / (1 + near)));
  CHECK(static_cast<double>(t.run()(0, 0, 1, 0)) == Approx(near / (1 + near)));
}

TEST_CASE("cosformer: a query without positive features gives zeros; values of one give one") {
  Trial t("cosformer", square(50));
  t.q = full<float>(t.q.shape(), -1.0f);
  const auto out = t.run();
  for (const float value : out.values()) CHECK(value == 0.0f);
  Trial u("cosformer", square(200));
  u.v = ones<float>(u.v.shape());
  CHECK(distance(u.run(), u.v) < 1e-5);
}

TEST_CASE("cosformer: denominators near zero, negative inputs and large norms stay finite") { check_stays_finite("cosformer"); }

TEST_CASE("cosformer: the sine and cosine of each position are part of its workspace") {
  const auto bytes = [](index_t n) {
    WorkspacePlan booked(1);
    const auto plan = variant("cosformer")->plan(square(n, 16, false), booked);
    return booked.bytes();
  };
  CHECK(bytes(512) - bytes(256) == 256 * 2 * index_t{sizeof(float)});
}
