#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("synth_dense: other options conform too") { check_conforms("synth_dense:max_len=600"); }

TEST_CASE("synth_dense: is full attention with static keys") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(150, 16, causal);
    Qkv in = arrays(p);
    in.q = abs(in.q);  // so that relu(x I) = x
    const auto keys = normal({2, 150, 16}, "static keys");
    ParameterSet<float> learned;
    learned.set("W1", broadcast_to(identity<float>(16), {2, 16, 16}));
    learned.set("W2", keys / 4.0f);  // full attention divides by sqrt(16)
    const auto out = run("synth_dense", p, in, {.parameters = &learned});
    in.k = reshape(keys, {1, 2, 150, 16});
    check_equal(out, run("full", p, in));
  }
}

TEST_CASE("synth_dense: negative features see every key alike") {
  const Problem p = problem(90);
  Qkv in = arrays(p);
  in.q = -abs(in.q);
  ParameterSet<float> learned = make_parameters(variant("synth_dense")->parameters(p), 1);
  learned.set("W1", broadcast_to(identity<float>(16), {2, 16, 16}));
  check_equal(run("synth_dense", p, in, {.parameters = &learned}), run("mean_v", p, in));
}

TEST_CASE("synth_dense: longer sequences than it is learned for are refused") {
  CHECK(variant("synth_dense:max_len=64")->supports(problem(64)));
  CHECK(!variant("synth_dense:max_len=64")->supports(problem(65)));
}
