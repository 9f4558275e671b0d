#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("global: when all tokens are global it is full attention") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(66, 16, causal);
    const Qkv in = arrays(p);
    check_equal(run("global:tokens=66", p, in), run("full", p, in));
  }
}

TEST_CASE("global: without global tokens nobody sees anything and the output is zero") {
  const Problem p = problem(20);
  check_equal(run("global:tokens=0", p, arrays(p)), zeros<float>({1, 2, 20, 16}), 0);
}

TEST_CASE("global: chosen positions count like leading ones, named twice or not") {
  const Problem p = problem(40);
  const Qkv in = arrays(p);
  check_equal(run("global:tokens=3", p, in), run("global:tokens=1,positions=1/2/2/0", p, in), 0);
}

TEST_CASE("global: conforms with scattered positions") { check_conforms("global:tokens=2,positions=5/40/63/480"); }

TEST_CASE("global: the pair count is the definition's") {
  check_pair_count("global:tokens=3");
  check_pair_count("global:tokens=0,positions=4/17/150");
}

TEST_CASE("global: bytes count the keys that are seen") {
  check_bytes("global:tokens=5");
  check_bytes("global:tokens=0,positions=4/17/60/76");
}

TEST_CASE("global: a decode keeps the tokens up to the last global one") {
  CHECK(state_rows("global:tokens=5", 1000) == 5);
  CHECK(state_rows("global:tokens=5,positions=17", 1000) == 18);
  CHECK(state_rows("global:tokens=0", 1000) == 1000);
}
