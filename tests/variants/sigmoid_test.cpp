#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("sigmoid: equal logits of 0 weigh 1 / (1 + M) each") {
  const Problem p = problem(49);
  Qkv in = arrays(p);
  in.q = zeros<float>(in.q.shape());
  check_equal(run("sigmoid", p, in), run("mean_v", p, in) * (49.0f / 50));
}

TEST_CASE("sigmoid: large logits are 0 or 1, and nothing overflows") {
  const Problem p = problem(3, 1, false, 1);
  Qkv in = arrays(p);
  in.q = Tensor<float>({1, 1, 3, 1}, {1e4f, -1e4f, 0});
  in.k = Tensor<float>({1, 1, 3, 1}, {1, 1, -1});
  in.v = Tensor<float>({1, 1, 3, 1}, {2, 3, 5});
  const auto out = run("sigmoid", p, in);
  CHECK(out(0, 0, 0, 0) == Approx(5));
  CHECK(out(0, 0, 1, 0) == Approx(5));
  CHECK(out(0, 0, 2, 0) == Approx(2.5));
}
