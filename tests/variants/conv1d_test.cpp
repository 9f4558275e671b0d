#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("conv1d: other options conform too") {
  for (const char* name : {"conv1d:width=4", "conv1d:depthwise=yes", "conv1d:width=150,depthwise=yes"}) check_conforms(name);
}

TEST_CASE("conv1d: by hand") {
  for (const char* name : {"conv1d:width=2", "conv1d:width=2,depthwise=yes"}) {
    Problem p = problem(3, 1, false, 1);
    Qkv in = arrays(p);
    in.q = Tensor<float>({1, 1, 3, 1}, {1, 2, 4});
    ParameterSet<float> set = make_parameters(variant(name)->parameters(p), 1);
    set.set("W", reshape(Tensor<float>({2}, {10, 1}), set["W"].shape()));
    set.set("b", Tensor<float>({1, 1}, {100}));
    auto out = run(name, p, in, {.parameters = &set});  // an even window reaches ahead
    CHECK(out(0, 0, 0, 0) == Approx(112));
    CHECK(out(0, 0, 2, 0) == Approx(140));
    p.causal = true;
    out = run(name, p, in, {.parameters = &set});
    CHECK(out(0, 0, 0, 0) == Approx(101));
    CHECK(out(0, 0, 2, 0) == Approx(124));
  }
}

TEST_CASE("conv1d: depthwise is the standard one with diagonal matrices") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(90, 16, causal);
    const Qkv in = arrays(p);
    ParameterSet<float> narrow = make_parameters(variant("conv1d:depthwise=yes")->parameters(p), 3), wide;
    wide.set("W", unsqueeze(narrow["W"], -1) * identity<float>(16));
    wide.set("b", narrow["b"]);
    check_equal(run("conv1d:depthwise=yes", p, in, {.parameters = &narrow}), run("conv1d", p, in, {.parameters = &wide}));
  }
}
