#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("additive: every set of options conforms") {
  for (const char* name : {"additive:size=16", "additive:size=5"}) check_conforms(name);
}

TEST_CASE("additive: v = 0 is uniform") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(130, 16, causal);
    const Qkv in = arrays(p);
    ParameterSet<float> set = make_parameters(variant("additive")->parameters(p), 1);
    set.set("v", zeros<float>({2, 64}));
    check_equal(run("additive", p, in, {.parameters = &set}), run("mean_v", p, in));
  }
}

TEST_CASE("additive: by hand, with tanh in its middle and at its ends") {
  for (const float size : {0.5f, 1.0f, 30.0f, 1e4f}) {
    const Problem p = problem(2, 1, false, 1);
    Qkv in = arrays(p);
    in.q = Tensor<float>({1, 1, 2, 1}, {size, -size});
    in.k = Tensor<float>({1, 1, 2, 1}, {0.25f, 0});
    in.v = Tensor<float>({1, 1, 2, 1}, {1, 0});
    ParameterSet<float> set;
    set.set("W", ones<float>({1, 1, 1}));
    set.set("U", ones<float>({1, 1, 1}));
    set.set("v", full<float>({1, 1}, 3));
    const auto out = run("additive:size=1", p, in, {.parameters = &set});
    const auto expected = [](double q) { return 1 / (1 + std::exp(3 * (std::tanh(q) - std::tanh(q + 0.25)))); };
    CHECK(out(0, 0, 0, 0) == Approx(expected(static_cast<double>(size))));
    CHECK(out(0, 0, 1, 0) == Approx(expected(-static_cast<double>(size))));
  }
}
