#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("fixed: a block of all keys, or a summary of the whole block, is full attention") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(83, 16, causal);
    const Qkv in = arrays(p);
    check_equal(run("fixed:block=83,summary=4", p, in), run("full", p, in));
    check_equal(run("fixed:block=10,summary=10", p, in), run("full", p, in));
  }
}

TEST_CASE("fixed: no summary leaves blocks of their own") {
  const Problem p = problem(83);
  const Qkv in = arrays(p);
  check_equal(run("fixed:block=20,summary=0", p, in), run("blockwise:block=20,before=0,after=0", p, in));
}

TEST_CASE("fixed: a summary longer than its block is refused") {
  CHECK_FALSE(variant("fixed:block=4,summary=5")->supports(problem(20)));
}

TEST_CASE("fixed: conforms with odd blocks") {
  check_conforms("fixed:block=7,summary=2");
  check_conforms("fixed:block=32,summary=5");
}

TEST_CASE("fixed: the pair count is the definition's") {
  check_pair_count("fixed:block=7,summary=2");
  check_pair_count("fixed:block=24,summary=5");
}

TEST_CASE("fixed: a decode keeps its block and the summaries of those before") {
  CHECK(state_rows("fixed:block=10,summary=3", 1001, 2) == 101 * 3 + 10 + 1);
  CHECK(state_rows("fixed:block=10,summary=0", 1001) == 10);
  CHECK(state_rows("fixed:block=10,summary=10", 1001) == 1001);
}

TEST_CASE("fixed: bytes count the keys that are seen") {
  check_bytes("fixed:block=10,summary=3");
  check_bytes("fixed:block=1000,summary=1");
}
