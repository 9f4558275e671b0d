#include "run.hpp"

using namespace attn;
using namespace attn::test;

namespace {

ParameterSet<float> matrices(const Tensor<float>& w1, const Tensor<float>& w2, float b1 = 0, float b2 = 0) {
  ParameterSet<float> set;
  set.set("W1", w1);
  set.set("W2", w2);
  set.set("b1", full<float>({w1.extent(0)}, b1));
  set.set("b2", full<float>({w2.extent(0)}, b2));
  return set;
}

}  // namespace

TEST_CASE("mlp_mixer: other options conform too") {
  for (const char* name : {"mlp_mixer:hidden=33", "mlp_mixer:hidden=100,max_len=600"}) check_conforms(name);
}

TEST_CASE("mlp_mixer: W1 = W2 = I is gelu, and x itself where gelu is linear") {
  const Problem p = problem(64);
  Qkv in = arrays(p);
  const auto same = matrices(identity<float>(64), identity<float>(64));
  check_equal(run("mlp_mixer:hidden=64", p, in, {.parameters = &same}), gelu(in.q));
  in.q = abs(in.q) + 6.0f;  // Phi(6) is 1 in float
  check_equal(run("mlp_mixer:hidden=64", p, in, {.parameters = &same}), in.q);
}

TEST_CASE("mlp_mixer: biases reach every channel, and W2 = 0 leaves b2") {
  const Problem p = problem(10);
  const Qkv in = arrays(p);
  const auto zero = matrices(zeros<float>({5, 10}), ones<float>({10, 5}), 20, 3);
  check_equal(run("mlp_mixer:hidden=5", p, in, {.parameters = &zero}), full<float>(in.q.shape(), 5 * 20 + 3), 1e-5);
}

TEST_CASE("mlp_mixer: no causal form, no positions beyond the learned ones") {
  CHECK(!variant("mlp_mixer")->supports(problem(64, 16, true)));
  CHECK(!variant("mlp_mixer:max_len=63")->supports(problem(64)));
}
