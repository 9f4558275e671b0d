#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("strided: a stride of one, or beyond the sequence, is full attention") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(95, 16, causal);
    const Qkv in = arrays(p);
    check_equal(run("strided:stride=1", p, in), run("full", p, in));
    check_equal(run("strided:stride=95", p, in), run("full", p, in));
  }
}

TEST_CASE("strided: split over heads, even heads see the window and odd ones the columns") {
  const Problem p = problem(60, 8, true);
  const Qkv in = arrays(p);
  const Tensor<float> split = run("strided:stride=6,heads=split", p, in);
  const Tensor<float> window = run("local:left=5,right=5", p, in);
  const Tensor<float> columns = run("dilated:window=60,step=6", p, in);
  check_equal(slice(split, 1, 0, 1), slice(window, 1, 0, 1));
  check_equal(slice(split, 1, 1, 2), slice(columns, 1, 1, 2));
}

TEST_CASE("strided: conforms with odd strides and split heads") {
  check_conforms("strided:stride=7");
  check_conforms("strided:stride=16,heads=split");
}

TEST_CASE("strided: the pair count is the definition's") {
  check_pair_count("strided:stride=7");
  check_pair_count("strided:stride=16,heads=split");
}

TEST_CASE("strided: bytes count the keys that are seen") {
  check_bytes("strided:stride=7");
  check_bytes("strided:stride=16,heads=split");
  check_bytes("strided:stride=1000");
}
