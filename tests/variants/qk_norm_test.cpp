#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("qk_norm: conforms") {
  check_conforms("qk_norm:norm=l2,window=40");
}

TEST_CASE("qk_norm: rows of root mean square one are full attention") {
  const Problem p = problem(150, 64, true);
  Qkv in = arrays(p);
  in.q = l2_normalize(in.q) * 8.0f;
  in.k = l2_normalize(in.k) * 8.0f;
  check_equal(run("qk_norm", p, in), run("full", p, in), 1e-5);
  check_equal(run("qk_norm:window=20", p, in), run("local:left=19,right=0", p, in), 1e-5);
}

TEST_CASE("qk_norm: lengths of queries and keys do not matter") {
  const Problem p = problem(90, 16);
  Qkv in = arrays(p);
  for (const char* name : {"qk_norm", "qk_norm:norm=l2"}) {
    const Tensor<float> before = run(name, p, in);
    Qkv longer = in;
    longer.q = in.q * 64.0f;
    longer.k = in.k * 64.0f;
    check_equal(run(name, p, longer), before, 1e-5);
  }
}

TEST_CASE("qk_norm: weights and scales are learned, and do what they say") {
  const Problem p = square(60, 16, true);
  Trial t("qk_norm", p);
  t.parameters.set("q_weight", Trial::random({16}, 1, "w"));
  CHECK(distance(t.run(), t.definition()) < 1e-6);
  t.parameters.set("q_weight", zeros<float>({16}));
  Trial equal("full", p);
  equal.q = equal.q * 0.0f;
  CHECK(distance(t.run(), equal.run()) < 1e-6);
  Trial scaled("qk_norm:norm=l2", p);
  scaled.parameters.set("scale", Tensor<float>({2}, {0.0f, 3.0f}));
  CHECK(distance(slice(scaled.run(), 1, 0, 1), slice(equal.run(), 1, 0, 1)) < 1e-6);
  CHECK(distance(scaled.run(), scaled.definition()) < 1e-6);
}

TEST_CASE("qk_norm: zero rows have logits of zero") {
  Trial t("qk_norm", square(40, 16));
  t.k = t.k * 0.0f;
  CHECK(distance(t.run(), t.definition()) < 1e-6);
}
