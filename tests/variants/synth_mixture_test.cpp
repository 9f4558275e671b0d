#include "run.hpp"

using namespace attn;
using namespace attn::test;

namespace {

Tensor<float> with_alpha(const std::string& name, const Problem& p, const Qkv& in, float alpha) {
  ParameterSet<float> set = make_parameters(variant(name)->parameters(p), 1);
  set.set("alpha", full<float>({1}, alpha));
  return run(name, p, in, {.parameters = &set});
}

}  // namespace

TEST_CASE("synth_mixture: other options conform too") {
  for (const char* name : {"synth_mixture:with=dense", "synth_mixture:max_len=600"}) check_conforms(name);
}

TEST_CASE("synth_mixture: nothing mixed in is full attention, no dot product the Synthesizer") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(120, 16, causal);
    const Qkv in = arrays(p);
    check_equal(with_alpha("synth_mixture", p, in, -40), run("full", p, in));
    check_equal(with_alpha("synth_mixture:with=dense", p, in, -40), run("full", p, in));
    check_equal(with_alpha("synth_mixture", p, in, 40), run("synth_random:cached=no", p, in));  // the same stream fills R
  }
}
