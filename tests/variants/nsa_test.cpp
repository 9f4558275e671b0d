#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

// Gates that let one of the three through alone.
ParameterSet<float> gates(const Problem& p, index_t open) {
  ParameterSet<float> parameters;
  parameters.set("W", zeros<float>({p.heads, p.head_dim, 3}));
  parameters.set("b", tabulate<float>({p.heads, 1, 3}, [=](index_t, index_t, index_t g) { return g == open ? 100 : -100; }));
  return parameters;
}

}  // namespace

TEST_CASE("nsa: conforms where it chooses") { check_conforms("nsa:block=8,stride=4,select=8,keep=5,window=20"); }

TEST_CASE("nsa: each of its three parts alone") {
  Problem p = problem(150, 16, true, 4);
  p.kv_heads = 2;
  const Qkv in = arrays(p);
  const auto alone = [&](const char* name, index_t open) {
    const ParameterSet<float> parameters = gates(p, open);
    return run(name, p, in, {.parameters = &parameters});
  };
  check_equal(alone("nsa:window=10", 2), run("local:left=9,right=0", p, in));
  check_equal(alone("nsa:select=16,keep=100", 1), run("full", p, in));
  check_equal(alone("nsa:block=1,stride=1", 0), run("full", p, in));
  // Three blocks that are always kept: the first, the own and the one before.
  const auto three = alone("nsa:select=16,keep=3", 1);
  check_equal(slice(three, 2, 0, 48), slice(run("full", p, in), 2, 0, 48));
}

TEST_CASE("nsa: gates of zeros give half of each") {
  const Problem p = problem(100, 16, true);
  const Qkv in = arrays(p);
  check_equal(run("nsa:block=1,stride=1,select=4,keep=100,window=1000", p, in), run("full", p, in) * 1.5f, 5e-6);
}

TEST_CASE("nsa: a block whose mean key stands out is chosen, by the heads of a kv head together") {
  Problem p = problem(128, 8, true, 2);
  p.kv_heads = 1;
  Qkv in = arrays(p, 0.01);
  std::vector<float> k(in.k.data(), in.k.data() + in.k.size()), v(in.v.data(), in.v.data() + in.v.size()),
      q(in.q.data(), in.q.data() + in.q.size());
  std::fill_n(k.begin() + 40 * 8, 8 * 8, 3.0f);  // block 5 of 8
  std::fill_n(v.begin() + 40 * 8, 8 * 8, 7.0f);
  std::fill_n(q.begin() + 127 * 8, 8, 3.0f);  // head 0 asks for it, head 1 for nothing
  const ParameterSet<float> parameters = gates(p, 1);
  const Qkv own{Tensor<float>(in.q.shape(), q), Tensor<float>(in.k.shape(), k), Tensor<float>(in.v.shape(), v)};
  const auto out = run("nsa:block=8,stride=8,select=8,keep=4", p, own, {.parameters = &parameters});
  CHECK(out(0, 0, 127, 2) == Approx(7).epsilon(1e-3));
  CHECK(out(0, 1, 127, 2) > 1);  // a quarter of its keys
}

TEST_CASE("nsa: a long sequence is the definition's, keys that are shared by heads too") {
  Problem p = problem(1500, 32, true, 4);
  p.kv_heads = 2;
  const Trial t("nsa:keep=6,window=100", p);
  CHECK(distance(t.run(2), t.definition()) < 1e-6);
}

TEST_CASE("nsa: is causal, and counts overlaps in strides") {
  CHECK(refusal("nsa", problem(50)).find("causal problems only") != std::string::npos);
  CHECK(refusal("nsa:stride=5", problem(50, 16, true)).find("must divide block and select") != std::string::npos);
  CHECK(refusal("nsa:keep=2", problem(50, 16, true)).find("keep=2 is outside") != std::string::npos);
}
