#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("full@unfused: is full attention") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(300, 32, causal);
    const Qkv in = arrays(p);
    check_equal(run("full@unfused", p, in), run("full", p, in));
  }
}

TEST_CASE("full@unfused: books the whole matrix") {
  const Problem p = problem(512);
  WorkspacePlan booked(1);
  const auto plan = variant("full@unfused")->plan(p, booked);
  CHECK(booked.bytes() >= 2 * 512 * 512 * 4);
  WorkspacePlan fused(1);
  const auto other = variant("full")->plan(p, fused);
  CHECK(fused.bytes() < booked.bytes() / 2);
}
