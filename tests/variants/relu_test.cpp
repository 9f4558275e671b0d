#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("relu: other options conform too") { check_conforms("relu:alpha=0.5"); }

TEST_CASE("relu: by hand") {
  Problem p = problem(3, 1, false, 1);
  Qkv in = arrays(p);
  in.q = Tensor<float>({1, 1, 3, 1}, {1, -1, 2});
  in.k = Tensor<float>({1, 1, 3, 1}, {1, 2, -3});
  in.v = Tensor<float>({1, 1, 3, 1}, {1, 10, 100});
  auto out = run("relu", p, in);
  CHECK(out(0, 0, 0, 0) == Approx((1 + 20) / 3.0));
  CHECK(out(0, 0, 1, 0) == Approx(300 / 3.0));
  CHECK(out(0, 0, 2, 0) == Approx((2 + 40) / 3.0));
  p.causal = true;
  out = run("relu", p, in);
  CHECK(out(0, 0, 0, 0) == Approx(1));
  CHECK(out(0, 0, 1, 0) == 0);
  CHECK(out(0, 0, 2, 0) == Approx((2 + 40) / 3.0));
}

TEST_CASE("relu: is homogeneous in Q") {
  const Problem p = problem(70);
  Qkv in = arrays(p);
  const auto once = run("relu", p, in);
  in.q = in.q * 4.0f;
  CHECK(largest_difference(run("relu", p, in), once * 4.0f) == 0);
}
