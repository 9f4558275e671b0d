#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("clustered: queries of their own are full attention, as are more clusters than queries") {
  const Problem p = problem(60);
  const Qkv in = arrays(p);
  for (const char* name : {"clustered:clusters=60,iterations=1", "clustered:clusters=1000,iterations=1"})
    check_equal(run(name, p, in), run("full", p, in));
}

TEST_CASE("clustered: one cluster answers for the mean query") {
  const Problem p = problem(70);
  Qkv in = arrays(p), mean = in;
  mean.q = broadcast_to(attn::mean(in.q, 2, Keep::yes), in.q.shape());
  check_equal(run("clustered:clusters=1", p, in), run("full", p, mean));
}

TEST_CASE("clustered: equal queries are full attention, whatever the clusters") {
  const Problem p = problem(200);
  Qkv in = arrays(p);
  for (const double value : {0.0, 1.0}) {
    in.q = full<float>(in.q.shape(), static_cast<float>(value));
    check_equal(run("clustered:clusters=7", p, in), run("full", p, in));
  }
}

TEST_CASE("clustered: NaN is survived") {
  const Problem p = problem(100);
  Qkv in = arrays(p);
  in.q = full<float>(in.q.shape(), std::nanf(""));
  run("clustered:clusters=7", p, in);
}

TEST_CASE("clustered: conforms with other options") {
  for (const char* name : {"clustered:clusters=5,bits=3,iterations=4", "clustered:clusters=30,bits=64,iterations=1"})
    check_conforms(name);
}
