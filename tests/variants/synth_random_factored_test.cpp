#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("synth_random_factored: other options conform too") { check_conforms("synth_random_factored:k=1,max_len=600"); }

TEST_CASE("synth_random_factored: k = N with R2 = I is the Random Synthesizer") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(100, 16, causal);
    const Qkv in = arrays(p);
    ParameterSet<float> set;
    set.set("R", normal({2, 100, 100}, "R"));
    set.set("R1", set["R"]);
    set.set("R2", broadcast_to(identity<float>(100), {2, 100, 100}));
    check_equal(run("synth_random_factored:k=100", p, in, {.parameters = &set}),
                run("synth_random:cached=no", p, in, {.parameters = &set}));
  }
}
