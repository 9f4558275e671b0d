#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("luong_general: W = I / sqrt(D) is full attention, W = 0 the mean") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(130, 16, causal);
    const Qkv in = arrays(p);
    ParameterSet<float> learned;
    learned.set("W", broadcast_to(identity<float>(16), {2, 16, 16}) / 4.0f);
    check_equal(run("luong_general", p, in, {.parameters = &learned}), run("full", p, in));
    learned.set("W", zeros<float>({2, 16, 16}));
    check_equal(run("luong_general", p, in, {.parameters = &learned}), run("mean_v", p, in));
  }
}
