#include "gated.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("mamba2: the fast path is its definition, at every length around a panel") {
  check_around_panels({"mamba2", "mamba2:skip=no,half_life=20", "mamba2:dt=input"});
}

TEST_CASE("mamba2: by hand, three tokens of steps 1, 1/2 and 2") {
  // A = 1, one channel, q = k = 1: S = 1, then e^(-1/2) + 1/2 x 2, then e^-2 of that + 2 x 3.
  Trial t("mamba2:dt=input", square(3, 1, true, 1));
  t.parameters.set("a_log", zeros<float>({1}));
  t.parameters.set("skip", Tensor<float>({1}, {10}));
  t.more.insert_or_assign("dt", Tensor<float>({1, 1, 3}, {1, 0.5f, 2}));
  t.q = ones<float>({1, 1, 3, 1});
  t.k = t.q;
  t.v = Tensor<float>({1, 1, 3, 1}, {1, 2, 3});
  const auto out = t.run();
  const double second = std::exp(-0.5) + 1;
  CHECK(static_cast<double>(out(0, 0, 0, 0)) == Approx(11));
  CHECK(static_cast<double>(out(0, 0, 1, 0)) == Approx(20 + second));
  CHECK(static_cast<double>(out(0, 0, 2, 0)) == Approx(30 + std::exp(-2.0) * second + 6));
}

TEST_CASE("mamba2: a token without a step, as padding has it, changes nothing") {
  Trial t("mamba2:skip=no,dt=input", square(40, 8, true, 1));
  Tensor<float> dt = t.more.at("dt");
  t.more.insert_or_assign("dt",
                          tabulate<float>({1, 1, 40}, [&](index_t, index_t, index_t i) { return i == 20 ? 0 : dt(0, 0, i); }));
  const auto out = t.run();
  const auto change = [](const Tensor<float>& x) {
    return tabulate<float>(x.shape(), [&](index_t b, index_t h, index_t i, index_t d) { return i == 20 ? 77.0f : x(b, h, i, d); });
  };
  t.k = change(t.k);
  t.v = change(t.v);
  CHECK(distance(t.run(), out) == 0);
}

TEST_CASE("mamba2: steps without end forget all, and leave no NaN") {
  Trial t("mamba2:skip=no,dt=input", square(40, 8, true, 1));
  t.more.insert_or_assign("dt",
                          tabulate<float>({1, 1, 40}, [](index_t, index_t, index_t i) { return i % 7 == 3 ? 500.0f : 0.01f; }));
  CHECK(distance(t.run(), t.definition()) < 1e-6);
}

TEST_CASE("mamba2: half_life is the tokens after which half is left, at keys of zero") {
  const auto variant = configure("mamba2:half_life=100");
  const auto parameters = make_parameters(variant->parameters(square(8, 16, true)), 1);
  const double step = std::log1p(std::exp(static_cast<double>(parameters["dt_b"](0))));
  CHECK(std::exp(-100 * step * std::exp(static_cast<double>(parameters["a_log"](0)))) == Approx(0.5).epsilon(1e-5));
}

TEST_CASE("mamba2: what is not defined is refused in a sentence") {
  CHECK(refusal("mamba2", square(10)).find("causal") != std::string::npos);
}
