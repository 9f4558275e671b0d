#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("longformer: without global tokens and dilation it is a sliding window") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(88, 16, causal);
    const Qkv in = arrays(p);
    check_equal(run("longformer:window=9,tokens=0", p, in), run("local:left=9,right=9", p, in), 0);
  }
}

TEST_CASE("longformer: when all tokens are global it is full attention") {
  const Problem p = problem(50);
  const Qkv in = arrays(p);
  check_equal(run("longformer:window=1,tokens=50", p, in), run("full", p, in));
}

TEST_CASE("longformer: the last heads are dilated, the first are not") {
  const Problem p = problem(64, 8, false, 3);
  const Qkv in = arrays(p);
  const Tensor<float> mixed = run("longformer:window=4,dilation=3,dilated_heads=2,tokens=0", p, in);
  check_equal(slice(mixed, 1, 0, 1), slice(run("local:left=4,right=4", p, in), 1, 0, 1));
  check_equal(slice(mixed, 1, 1, 3), slice(run("dilated:window=4,step=3", p, in), 1, 1, 3));
}

TEST_CASE("longformer: conforms with global tokens inside and outside the window, dilated or not") {
  check_conforms("longformer:window=5,tokens=2,positions=30/31");
  check_conforms("longformer:window=5,dilation=3,dilated_heads=1,tokens=3,positions=40");
  check_conforms("longformer:window=2,dilation=2,dilated_heads=9,tokens=1");
}

TEST_CASE("longformer: the pair count is the definition's") {
  check_pair_count("longformer:window=5,tokens=3,positions=20");
  check_pair_count("longformer:window=5,dilation=4,dilated_heads=1,tokens=3,positions=20");
}

TEST_CASE("longformer: bytes count the keys that are seen") {
  check_bytes("longformer:window=4,tokens=3");
  check_bytes("longformer:window=4,dilation=3,dilated_heads=1,tokens=1,positions=9/60");
}

TEST_CASE("longformer: a decode keeps its widest window, and the tokens up to the last global one") {
  CHECK(state_rows("longformer:window=4,tokens=3", 1000, 2) == 3 + 5 + 1);
  CHECK(state_rows("longformer:window=4,dilation=3,dilated_heads=1,tokens=3,positions=9", 1000) == 10 + 13);
}
