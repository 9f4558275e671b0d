#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("inducing: the fast path is its definition") {
  for (const index_t m : {1, 7, 32, 100}) {
    for (const index_t n : {1, 2, 63, 65, 300}) {
      Problem p = square(n, 40, false, 4);
      p.kv_heads = 2;
      p.value_dim = 24;
      p.kv_len = 2 * n + 3;
      p.batch = 2;
      const Trial t("inducing:m=" + std::to_string(m), p);
      INFO(t.variant->name().text() << " " << to_string(p));
      CHECK(distance(t.run(), t.definition()) < 1e-5);
    }
  }
}

TEST_CASE("inducing: the order of the keys does not matter") {
  Trial t("inducing", square(200));
  const auto before = t.run();
  t.k = flip(t.k, 2), t.v = flip(t.v, 2);
  CHECK(distance(t.run(), before) < 1e-5);
}

TEST_CASE("inducing: one point under the identity gives every query the same summary") {
  Trial t("inducing:m=1", square(50, 16, false, 1));
  t.parameters.set("W_v", unsqueeze(identity<float>(16), 0));
  t.parameters.set("I", zeros<float>({1, 1, 16}));
  const auto mean_v = mean(cast<double>(t.v), 2, Keep::yes) + zeros<double>(t.v.shape());
  CHECK(distance(t.run(), mean_v) < 1e-5);
}

TEST_CASE("inducing: denominators near zero, negative inputs and large norms stay finite") { check_stays_finite("inducing"); }

TEST_CASE("inducing: no points are refused with the range") {
  CHECK(refusal("inducing:m=0", square(8)).find("m=0") != std::string::npos);
}
