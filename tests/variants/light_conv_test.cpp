#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("light_conv: other options conform too") {
  for (const char* name : {"light_conv:width=1", "light_conv:width=4", "light_conv:width=150"}) check_conforms(name);
}

TEST_CASE("light_conv: by hand") {
  Problem p = problem(4, 1, false, 1);
  Qkv in = arrays(p);
  in.q = Tensor<float>({1, 1, 4, 1}, {1, 2, 4, 8});
  ParameterSet<float> w;
  w.set("w", Tensor<float>({1, 3}, {std::log(1.0f), std::log(2.0f), std::log(5.0f)}));
  auto out = run("light_conv:width=3", p, in, {.parameters = &w});
  CHECK(out(0, 0, 0, 0) == Approx((2 * 1 + 5 * 2) / 8.0));
  CHECK(out(0, 0, 2, 0) == Approx((2 + 2 * 4 + 5 * 8) / 8.0));
  CHECK(out(0, 0, 3, 0) == Approx((4 + 2 * 8) / 8.0));
  p.causal = true;
  out = run("light_conv:width=3", p, in, {.parameters = &w});
  CHECK(out(0, 0, 0, 0) == Approx(5 / 8.0));
  CHECK(out(0, 0, 3, 0) == Approx((2 + 2 * 4 + 5 * 8) / 8.0));
}

TEST_CASE("light_conv: a window of one token is the token") {
  const Problem p = problem(77);
  const Qkv in = arrays(p);
  CHECK(largest_difference(run("light_conv:width=1", p, in), in.q) == 0);
}
