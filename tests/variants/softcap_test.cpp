#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("softcap: conforms") {
  check_conforms("softcap:cap=1,window=40");
}

TEST_CASE("softcap: a large cap is full attention, and its window local attention") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(150, 32, causal);
    const Qkv in = arrays(p);
    check_equal(run("softcap:cap=1e5", p, in), run("full", p, in), 1e-5);
    check_equal(run("softcap:cap=1e5,window=20", p, in), run("local:left=19,right=19", p, in), 1e-5);
  }
}

TEST_CASE("softcap: two keys by hand, one beyond the cap and one within") {
  const Problem p = problem(1, 1, false, 1);
  Problem two = p;
  two.kv_len = 2;
  const Qkv in{Tensor<float>({1, 1, 1, 1}, {1.0f}), Tensor<float>({1, 1, 2, 1}, {7.0f, 0.5f}),
               Tensor<float>({1, 1, 2, 1}, {10.0f, 20.0f})};
  const double a = std::exp(2 * std::tanh(3.5)), b = std::exp(2 * std::tanh(0.25));
  CHECK(run("softcap:cap=2", two, in)(0, 0, 0, 0) == Approx((10 * a + 20 * b) / (a + b)));
}

TEST_CASE("softcap: no logit, however large, makes a weight of more than e^2c of another") {
  const Problem p = problem(100, 16);
  Qkv in = arrays(p, 1e4);
  in.v = concat<float>({ones<float>({1, 2, 50, 16}), zeros<float>({1, 2, 50, 16})}, 2);
  const Tensor<float> out = run("softcap:cap=1", p, in);
  const float least = 1 / (1 + std::exp(2.0f));
  for (const float x : out.values()) CHECK((x > least - 1e-6f && x < 1 - least + 1e-6f));
}

TEST_CASE("softcap: logits at both sides of where its series ends hold to the definition") {
  for (const double size : {0.1, 1.0, 3.0, 30.0}) {
    for (const char* name : {"softcap:cap=50", "softcap:cap=2", "softcap:cap=2,window=9"}) {
      Trial t(name, square(200, 32, true));
      t.q = t.q * static_cast<float>(size);
      INFO(name << " " << size);
      CHECK(distance(t.run(2), t.definition()) < 1e-6);
    }
  }
}

TEST_CASE("softcap: a row's bits do not depend on whether others are capped") {
  const Problem p = problem(96, 16, false, 1);
  Qkv in = arrays(p);
  const Tensor<float> before = run("softcap:cap=5", p, in);
  in.q = concat<float>({slice(in.q, 2, 0, 48), slice(in.q, 2, 48, 96) * 100.0f}, 2);
  check_equal(slice(run("softcap:cap=5", p, in), 2, 0, 48), slice(before, 2, 0, 48), 0);
}

TEST_CASE("softcap: refuses a cap of nothing") {
  CHECK(refusal("softcap:cap=0", problem(50)).find("cap=0 is outside") != std::string::npos);
}
