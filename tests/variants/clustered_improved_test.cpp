#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("clustered_improved: topk = N is full attention, whatever the clusters") {
  for (const index_t n : {1, 60, 129}) {
    for (const bool causal : {false, true}) {
      const Problem p = problem(n, 16, causal);
      const Qkv in = arrays(p);
      for (const char* name : {"clustered_improved:clusters=4,topk=1000", "clustered_improved:clusters=1000,topk=129"}) {
        INFO(name << " at " << to_string(p));
        check_equal(run(name, p, in), run("full", p, in), 1e-5);
      }
    }
  }
}

TEST_CASE("clustered_improved: nearer to full attention than clustered, the nearer the more keys") {
  const Problem p = problem(300);
  const Qkv in = arrays(p, 1.5);
  const Tensor<float> exact = run("full", p, in);
  const double clustered = distance(run("clustered:clusters=16", p, in), exact);
  const double few = distance(run("clustered_improved:clusters=16,topk=16", p, in), exact);
  const double many = distance(run("clustered_improved:clusters=16,topk=150", p, in), exact);
  CHECK(few < clustered);
  CHECK(many < 0.7 * few);
}

TEST_CASE("clustered_improved: values of one give one") {
  const Problem p = problem(200);
  Qkv in = arrays(p);
  in.v = ones<float>(in.v.shape());
  check_equal(run("clustered_improved:clusters=9", p, in), in.v, 1e-5);
}

TEST_CASE("clustered_improved: equal keys, zero queries and NaN are survived") {
  const Problem p = problem(100);
  Qkv in = arrays(p);
  in.q = zeros<float>(in.q.shape());
  in.k = ones<float>(in.k.shape());
  check_equal(run("clustered_improved:clusters=7", p, in), run("full", p, in));
  in.q = full<float>(in.q.shape(), std::nanf(""));
  run("clustered_improved:clusters=7", p, in);
}

TEST_CASE("clustered_improved: conforms with other options") {
  for (const char* name : {"clustered_improved:clusters=5,topk=3,bits=7", "clustered_improved:clusters=2,topk=100,iterations=1"})
    check_conforms(name);
}

TEST_CASE("clustered_improved: logits that rounding moves by more than a weight has room for stay finite") {
  const Problem p = problem(65);
  const Tensor<float> out = run("clustered_improved:clusters=4,topk=4", p, arrays(p, 1e3));
  CHECK(largest_difference(out, zeros<float>(out.shape())) < 100);
}

TEST_CASE("clustered_improved: keys outside of the top ones keep their digits where the top ones have nearly all of the mass") {
  for (const double std : {3.0, 5.0, 100.0}) {
    Trial t("clustered_improved", square(64, 64, false, 8));
    t.q = t.q * static_cast<float>(std), t.k = t.k * static_cast<float>(std);
    const Tensor<double> exact = t.definition();
    INFO("standard deviation " << std);
    // As the gate: the fast path's rounding is another than the definition's in float, and no smaller.
    CHECK(largest_difference(t.run(), cast<float>(exact)) <
          2 * largest_difference(t.definition<float>(), cast<float>(exact)) + 2e-6);
  }
}
