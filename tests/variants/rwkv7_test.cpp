#include "gated.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("rwkv7: the fast path is its definition, at every length around a panel") {
  check_around_panels({"rwkv7", "rwkv7:rank=3,half_life=100"});
}

TEST_CASE("rwkv7: arrays of the input are gates as learned ones are") {
  check_properties("rwkv7:gate=input", {"agreement", "decode"});
}

TEST_CASE("rwkv7: by hand, two tokens of one channel") {
  // c = 1 and a = 1/2, k~ = k (1 - k_a / 2) = 1/2 k: S = 1/2 k_1 v_1, then (w - 1/2) S + 1/2 k_2 v_2.
  Trial t("rwkv7:rank=1", square(2, 1, true, 1));
  for (const char* name : {"w_in", "w_out", "a_in", "a_out", "w_b", "a_b"}) t.parameters.set(name, t.parameters[name] * 0.0f);
  t.parameters.set("k_a", Tensor<float>({1, 1}, {1}));
  t.parameters.set("r", Tensor<float>({1, 1}, {3}));
  t.q = Tensor<float>({1, 1, 2, 1}, {1, 1});
  t.k = Tensor<float>({1, 1, 2, 1}, {2, 4});
  t.v = Tensor<float>({1, 1, 2, 1}, {5, 7});
  const auto out = t.run();
  const double w = std::exp(-std::exp(-0.5) / 2);
  CHECK(static_cast<double>(out(0, 0, 0, 0)) == Approx(5 + 3 * 5));
  CHECK(static_cast<double>(out(0, 0, 1, 0)) == Approx((w - 0.5) * 5 + 14 + 3 * 14));
}

TEST_CASE("rwkv7: rates of zero remove nothing, and it is linear attention that fades") {
  Trial t("rwkv7", square(90, 8, true, 1));
  for (const char* name : {"w_in", "w_out", "a_in", "a_out", "w_b", "k_a", "r"}) t.parameters.set(name, t.parameters[name] * 0.0f);
  t.parameters.set("a_b", t.parameters["a_b"] - 200.0f);
  const double log_gate = -std::exp(-0.5) / 2;
  const Tensor<double> kept = tabulate<double>({1, 1, 90, 90}, [&](index_t, index_t, index_t i, index_t j) {
    return j <= i ? std::exp(static_cast<double>(i - j) * log_gate) : 0.0;
  });
  const Tensor<double> weights = matmul_transposed(cast<double>(t.q), cast<double>(t.k)) * kept;
  CHECK(distance(t.run(), matmul(weights, cast<double>(t.v))) < 1e-6);
}

TEST_CASE("rwkv7: equal keys and keys of zero stay numbers") {
  check_stays_finite("rwkv7");
  Trial t("rwkv7", square(500, 64, true, 1));
  t.k = t.k * 0.001f + 1.0f;
  CHECK(distance(t.run(), t.definition()) < 3e-6);
}

TEST_CASE("rwkv7: what is not defined is refused in a sentence") {
  CHECK(refusal("rwkv7", square(10)).find("causal") != std::string::npos);
  CHECK(refusal("rwkv7:half_life=1", square(10, 64, true)).find("half_life=1") != std::string::npos);
}
