#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("synth_dense_factored: other options conform too") { check_conforms("synth_dense_factored:a=7,max_len=600"); }

TEST_CASE("synth_dense_factored: by hand, over the outer product of (1, 2) and (0, ln 2)") {
  const Problem p = problem(4, 1, false, 1);
  Qkv in = arrays(p);
  in.q = ones<float>(in.q.shape());
  in.v = Tensor<float>({1, 1, 4, 1}, {1, 10, 100, 1000});
  ParameterSet<float> set;
  set.set("W", ones<float>({1, 1, 1}));
  set.set("Wa", Tensor<float>({1, 1, 2}, {1, 2}));
  set.set("Wc", Tensor<float>({1, 1, 2}, {0, std::log(2.0f)}));
  const auto out = run("synth_dense_factored:a=2", p, in, {.parameters = &set});
  CHECK(out(0, 0, 2, 0) == Approx((1 + 2 * 10 + 100 + 4 * 1000) / 8.0));
}
