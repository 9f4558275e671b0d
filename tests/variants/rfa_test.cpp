#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

Tensor<float> gaussian(const Shape& shape, float size) {
  const Rng rng(5, "shape");
  return generate<float>(shape, [&](index_t i) { return size * static_cast<float>(rng.normal(i)); });
}

}  // namespace

TEST_CASE("rfa: the fast path is its definition") {
  for (const bool causal : {false, true}) {
    for (const index_t n : {1, 2, 31, 33, 64, 65, 300}) {
      Trial t("rfa:m=50,tau=0.8", square(n, n == 65 ? 40 : 64, causal));
      t.parameters.set("sigma", gaussian(t.parameters["sigma"].shape(), 0.2f) + 1.0f);
      INFO("N=" << n << " causal=" << causal);
      CHECK(distance(t.run(), t.definition()) < 3e-5);
    }
    Problem p = square(100, 32, causal, 2);
    p.kv_len = 257;
    const Trial t("rfa", p);
    CHECK(distance(t.run(), t.definition()) < 3e-5);
  }
}

TEST_CASE("rfa with a gate: the fast path is its definition, on one thread or many") {
  for (const index_t n : {1, 2, 31, 33, 65, 300, 2000}) {
    Trial t("rfa:m=30,gate=yes", square(n, 24, true, 1));
    t.parameters.set("gate_w", gaussian(t.parameters["gate_w"].shape(), 0.5f));
    t.parameters.set("gate_b", gaussian(t.parameters["gate_b"].shape(), 1.0f) + 2.0f);
    INFO("N=" << n);
    CHECK(distance(t.run(1), t.definition()) < 3e-5);
    CHECK(distance(t.run(4), t.definition()) < 3e-5);
  }
  CHECK(refusal("rfa:gate=yes", square(10)).find("causal") != std::string::npos);
}

TEST_CASE("rfa with a gate of one half: weights halve with every step") {
  // One frequency of zero: phi = [0, 1], so all products are 1.
  Trial t("rfa:m=1,gate=yes", square(4, 1, true, 1));
  t.parameters.set("w", zeros<float>({1, 1}));
  t.v = Tensor<float>({1, 1, 4, 1}, {1, 0, 0, 0});
  const auto out = t.run();
  for (index_t i = 0; i < 4; ++i) {
    const double newest = 0.5, sum = 1 - std::pow(0.5, i + 1);
    CHECK(static_cast<double>(out(0, 0, i, 0)) == Approx(newest * std::pow(0.5, i) / sum));
  }
}

TEST_CASE("rfa: the error against softmax of unit vectors falls with m") {
  const auto error = [](index_t m) {
    double total = 0;
    for (std::uint64_t seed = 1; seed <= 4; ++seed) {
      Trial t("rfa:m=" + std::to_string(m), square(256, 16, false, 1), seed);
      const auto unit = [](const Tensor<float>& x) { return l2_normalize(x); };
      const Tensor<double> q = cast<double>(unit(t.q)), k = cast<double>(unit(t.k));
      const auto truth = matmul(softmax(matmul_transposed(q, k)), cast<double>(t.v));
      total += std::pow(distance(t.run(), truth), 2);
    }
    return total;
  };
  const double m16 = error(16), m64 = error(64), m256 = error(256);
  CHECK(m64 < 0.6 * m16);
  CHECK(m256 < 0.6 * m64);
}

TEST_CASE("rfa: zero and huge tokens stay finite") {
  Trial t("rfa", square(100));
  t.q = t.q * 0.0f, t.k = t.k * 1e4f;
  CHECK(finite(t.run()));
}
