#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("mean_v: every query gets the mean, or the running mean when causal") {
  Problem p = problem(700, 4, false, 1);
  Qkv in = arrays(p);
  in.v = tabulate<float>({1, 1, 700, 4}, [](index_t, index_t, index_t i, index_t) { return static_cast<float>(i); });
  CHECK(run("mean_v", p, in)(0, 0, 3, 2) == Approx(349.5));
  p.causal = true;
  const Tensor<float> running = run("mean_v", p, in);
  for (index_t i = 0; i < 700; ++i) CHECK(running(0, 0, i, 1) == Approx(0.5 * static_cast<double>(i)));
}

TEST_CASE("mean_v: is full attention with equal keys") {
  const Problem p = problem(300);
  Qkv in = arrays(p);
  in.k = zeros<float>({1, 2, 300, 16});
  check_equal(run("mean_v", p, in), run("full", p, in));
}
