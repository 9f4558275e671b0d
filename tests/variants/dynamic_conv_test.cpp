#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("dynamic_conv: other options conform too") {
  for (const char* name : {"dynamic_conv:width=1", "dynamic_conv:width=4"}) check_conforms(name);
}

TEST_CASE("dynamic_conv: by hand") {
  Problem p = problem(3, 1, false, 1);
  Qkv in = arrays(p);
  in.q = Tensor<float>({1, 1, 3, 1}, {1, 2, 4});
  ParameterSet<float> w;
  w.set("W", Tensor<float>({1, 1, 2}, {0, std::log(2.0f)}));  // token t weighs (1, 2^t-th value) : 2^x
  const auto out = run("dynamic_conv:width=2", p, in, {.parameters = &w});
  CHECK(out(0, 0, 0, 0) == Approx(2 * 1 / 3.0));
  CHECK(out(0, 0, 1, 0) == Approx((1 + 4 * 2) / 5.0));
  CHECK(out(0, 0, 2, 0) == Approx((2 + 16 * 4) / 17.0));
}

TEST_CASE("dynamic_conv: W = 0 is the mean of the window, as light_conv with w = 0") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(100, 16, causal);
    const Qkv in = arrays(p);
    ParameterSet<float> dynamic, light;
    dynamic.set("W", zeros<float>({2, 16, 5}));
    light.set("w", zeros<float>({2, 5}));
    check_equal(run("dynamic_conv:width=5", p, in, {.parameters = &dynamic}),
                run("light_conv:width=5", p, in, {.parameters = &light}));
  }
}
