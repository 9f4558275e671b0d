#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("copy_v: the output is V, bit for bit") {
  const Problem p = problem(1500, 24);
  const Qkv in = arrays(p);
  check_equal(run("copy_v", p, in), in.v, 0);
}
