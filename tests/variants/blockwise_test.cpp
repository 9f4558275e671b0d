#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("blockwise: one block of all keys is full attention") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(90, 16, causal);
    const Qkv in = arrays(p);
    check_equal(run("blockwise:block=90,before=0,after=0", p, in), run("full", p, in));
    check_equal(run("blockwise:block=8,before=100,after=100", p, in), run("full", p, in));
  }
}

TEST_CASE("blockwise: blocks do not wrap around the ends") {
  const Problem p = problem(40, 8, false, 1);
  Qkv in = arrays(p);
  std::vector<float> v(in.v.values().begin(), in.v.values().end());
  v[39 * 8] = std::nanf("");
  in.v = Tensor<float>(in.v.shape(), v);
  const Tensor<float> out = run("blockwise:block=10,before=1,after=1", p, in);
  for (index_t i = 0; i < 40; ++i) CHECK(std::isnan(out(0, 0, i, 0)) == (i >= 20));
}

TEST_CASE("blockwise: conforms with odd blocks") {
  check_conforms("blockwise:block=7,before=0,after=2");
  check_conforms("blockwise:block=33,before=2,after=0");
}

TEST_CASE("blockwise: the pair count is the definition's") { check_pair_count("blockwise:block=13,before=2,after=1"); }

TEST_CASE("blockwise: bytes count the keys that are seen") {
  check_bytes("blockwise:block=7,before=2,after=1");
  check_bytes("blockwise:block=100,before=0,after=0");
}

TEST_CASE("blockwise: a decode keeps its block and those before in reach") {
  CHECK(state_rows("blockwise:block=7,before=2,after=1", 1000, 3) == 21 + 2);
}
