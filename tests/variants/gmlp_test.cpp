#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("gmlp: other options conform too") { check_conforms("gmlp:max_len=600"); }

TEST_CASE("gmlp: starts as v") {
  const Problem p = problem(100);
  const Qkv in = arrays(p);
  check_equal(run("gmlp", p, in), in.v, 5e-3 * 4);
}

TEST_CASE("gmlp: W = I and b = 0 gate each token by its own normalised self") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(100, 16, causal);
    const Qkv in = arrays(p);
    ParameterSet<float> own;
    own.set("W", identity<float>(100));
    own.set("b", zeros<float>({100}));
    check_equal(run("gmlp", p, in, {.parameters = &own}), in.v * layer_norm(in.q));
  }
}

TEST_CASE("gmlp: by hand, and the upper triangle of W is no part of the causal unit") {
  Problem p = problem(2, 2, false, 1);
  Qkv in = arrays(p);
  in.q = Tensor<float>({1, 1, 2, 2}, {1e3f, -1e3f, -1e3f, 1e3f});  // norm: (1, -1) and (-1, 1)
  in.v = Tensor<float>({1, 1, 2, 2}, {1, 2, 3, 4});
  ParameterSet<float> learned;
  learned.set("W", Tensor<float>({2, 2}, {1, 5, 2, 0.5f}));
  learned.set("b", Tensor<float>({2}, {10, 20}));
  auto out = run("gmlp", p, in, {.parameters = &learned});
  CHECK(out(0, 0, 0, 0) == Approx(1 * (1 - 5 + 10)));
  CHECK(out(0, 0, 1, 1) == Approx(4 * (-2 + 0.5 + 20)));
  p.causal = true;
  out = run("gmlp", p, in, {.parameters = &learned});
  CHECK(out(0, 0, 0, 0) == Approx(1 * (1 + 10)));
  CHECK(out(0, 0, 1, 1) == Approx(4 * (-2 + 0.5 + 20)));
}

TEST_CASE("gmlp: refuses what it is not defined for") {
  Problem p = problem(64);
  CHECK(!variant("gmlp:max_len=63")->supports(p));
  p.value_dim = 8;
  CHECK(!variant("gmlp")->supports(p));
}
