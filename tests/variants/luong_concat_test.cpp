#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("luong_concat: conforms") { check_conforms("luong_concat:size=16"); }

TEST_CASE("luong_concat: is additive attention with one matrix cut in two") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(100, 16, causal);
    const Qkv in = arrays(p);
    ParameterSet<float> set = make_parameters(variant("luong_concat")->parameters(p), 1);
    set.set("U", slice(set["W"], 1, 16, 32));
    ParameterSet<float> cut = set;
    cut.set("W", slice(set["W"], 1, 0, 16));
    check_equal(run("luong_concat", p, in, {.parameters = &set}), run("additive", p, in, {.parameters = &cut}));
  }
}
