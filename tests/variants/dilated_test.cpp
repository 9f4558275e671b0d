#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("dilated: a step of one is a sliding window") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(101, 16, causal);
    const Qkv in = arrays(p);
    check_equal(run("dilated:window=6,step=1", p, in), run("local:left=6,right=6", p, in));
  }
}

TEST_CASE("dilated: a step beyond the sequence copies V") {
  const Problem p = problem(30);
  const Qkv in = arrays(p);
  check_equal(run("dilated:window=9,step=30", p, in), in.v, 1e-6);
}

TEST_CASE("dilated: conforms with odd steps") {
  check_conforms("dilated:window=3,step=5");
  check_conforms("dilated:window=40,step=3");
}

TEST_CASE("dilated: the pair count is the definition's") {
  check_pair_count("dilated:window=3,step=5");
  check_pair_count("dilated:window=100,step=7");
}

TEST_CASE("dilated: bytes count the keys that are seen") {
  check_bytes("dilated:window=3,step=5");
  check_bytes("dilated:window=1000,step=2");
  check_bytes("dilated:window=2,step=1000");
}

TEST_CASE("dilated: a decode keeps its window with what lies between") { CHECK(state_rows("dilated:window=3,step=5", 1000, 2) == 17); }
