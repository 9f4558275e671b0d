#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("local: a window as long as the keys is full attention") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(100, 16, causal);
    const Qkv in = arrays(p);
    check_equal(run("local:left=99,right=99", p, in), run("full", p, in));
    check_equal(run("local:left=100000,right=100000", p, in), run("full", p, in));
  }
}

TEST_CASE("local: a window of the query alone copies V") {
  const Problem p = problem(75);
  const Qkv in = arrays(p);
  check_equal(run("local:left=0,right=0", p, in), in.v, 1e-6);
}

TEST_CASE("local: keys outside the window do not matter, not even as NaN") {
  const Problem p = problem(90, 16, false, 1);
  Qkv in = arrays(p);
  const Tensor<float> clean = run("local:left=5,right=3", p, in);
  std::vector<float> v(in.v.values().begin(), in.v.values().end());
  v[50 * 16] = std::nanf("");
  in.v = Tensor<float>(in.v.shape(), v);
  const Tensor<float> out = run("local:left=5,right=3", p, in);
  for (index_t i = 0; i < 90; ++i) {
    const bool sees = 50 - i <= 3 && i - 50 <= 5;
    CHECK(std::isnan(out(0, 0, i, 0)) == sees);
    if (!sees) CHECK(out(0, 0, i, 0) == clean(0, 0, i, 0));
  }
}

TEST_CASE("local: as many sinks as keys is full attention") {
  const Problem p = problem(60);
  const Qkv in = arrays(p);
  check_equal(run("local:left=2,right=2,sinks=60", p, in), run("full", p, in));
}

TEST_CASE("local: conforms with short, one-sided and sunk windows") {
  check_conforms("local:left=3,right=5");
  check_conforms("local:left=0,right=17");
  check_conforms("local:left=20,right=0,sinks=4");
}

TEST_CASE("local: the pair count is the definition's") {
  check_pair_count("local:left=7,right=2");
  check_pair_count("local:left=7,right=2,sinks=11");
}

TEST_CASE("local: bytes count the keys that are seen") {
  check_bytes("local:left=7,right=2");
  check_bytes("local:left=7,right=2,sinks=11");
  check_bytes("local:left=0,right=0,sinks=200");
}

TEST_CASE("local: a decode keeps its window and the sinks, and as much more as a step has tokens") {
  CHECK(state_rows("local:left=7,right=2", 1000) == 8);
  CHECK(state_rows("local:left=7,right=2,sinks=11", 1000, 4) == 11 + 8 + 3);
  CHECK(state_rows("local:left=7,right=2,sinks=11", 15) == 15);
}
