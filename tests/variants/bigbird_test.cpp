#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("bigbird: with four blocks, or enough random ones, it is full attention") {
  const Problem p = problem(64);
  const Qkv in = arrays(p);
  check_equal(run("bigbird:block=16,random=0", p, in), run("full", p, in));
  check_equal(run("bigbird:block=8,random=4", p, in), run("full", p, in));
  check_equal(run("bigbird:block=8,random=100", p, in), run("full", p, in));
}

TEST_CASE("bigbird: random blocks are distinct, in range and outside window and edges") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(400, 16, causal, 4);
    const auto v = variant("bigbird:block=10,random=3");
    const ParameterSet<float> parameters = make_parameters(v->parameters(p), 5);
    const auto table = parameters.view<3>("random_blocks");
    REQUIRE(table.extent(1) == 40);
    bool heads_differ = false;
    for (index_t h = 0; h < 4; ++h) {
      for (index_t u = 1; u < 39; ++u) {
        for (index_t r = 0; r < 3; ++r) {
          const auto block = static_cast<index_t>(table(h, u, r));
          heads_differ = heads_differ || block != static_cast<index_t>(table(0, u, r));
          if (block < 0) continue;
          CHECK((block > 0 && block < 39 && std::abs(block - u) > 1));
          if (causal) CHECK(block < u);
          if (r > 0) CHECK(block > static_cast<index_t>(table(h, u, r - 1)));
        }
      }
    }
    CHECK(heads_differ);
  }
}

TEST_CASE("bigbird: another seed draws other blocks, the same seed the same") {
  const Problem p = problem(400);
  const Qkv in = arrays(p);
  const Tensor<float> first = run("bigbird:block=10", p, in, {.seed = 1});
  check_equal(first, run("bigbird:block=10", p, in, {.seed = 1}), 0);
  CHECK(largest_difference(first, run("bigbird:block=10", p, in, {.seed = 2})) > 1e-3);
}

TEST_CASE("bigbird: conforms with odd blocks and none at random") {
  check_conforms("bigbird:block=7,random=2");
  check_conforms("bigbird:block=20,random=0");
}

TEST_CASE("bigbird: the pair count is the definition's") {
  check_pair_count("bigbird:block=7,random=2");
  check_pair_count("bigbird:block=16,random=1");
}

TEST_CASE("bigbird: a table may name the blocks that there are, or none, and nothing else") {
  const Problem p = problem(100);
  const auto v = variant("bigbird:block=10,random=3");
  const Parameters specs = v->parameters(p);
  const Tensor<float> drawn = make_parameters(specs, 1)["random_blocks"];
  CHECK(specs[0].check(drawn.values()));
  std::vector<float> table(drawn.values().begin(), drawn.values().end());
  for (const float block : {-1.0f, 9.0f}) {
    table[7] = block;
    CHECK(specs[0].check(table));
  }
  for (const float block : {-2.0f, 10.0f, 1.5f}) {
    table[7] = block;
    const Status status = specs[0].check(table);
    REQUIRE(!status);
    CHECK(status.reason() == "element 7 is no whole number from -1 to 9");
  }
}

TEST_CASE("bigbird: bytes count the keys that are seen, random blocks as if no two heads drew the same") {
  check_bytes("bigbird:block=7,random=0");
  Problem p = problem(1, 4, true);
  p.kv_len = 200;
  CHECK(variant("bigbird:block=7,random=2")->cost(p).bytes == tensor_bytes(p) - 4.0 * 8 * 2 * (200 - (5 * 7 - 3)));
}

TEST_CASE("bigbird: a decode keeps the first block and two, or all where blocks are drawn") {
  CHECK(state_rows("bigbird:block=7,random=0", 1000, 2) == 7 + 14 + 1);
  CHECK(state_rows("bigbird:block=7,random=1", 1000) == 1000);
}

TEST_CASE("bigbird: a causal row does not depend on where its sequence ends") {
  const Problem longer = problem(96, 16, true), shorter = problem(83, 16, true);
  const auto v = variant("bigbird:block=8,random=2");
  const ParameterSet<float> parameters = make_parameters(v->parameters(longer), 1);
  const Qkv in = arrays(longer);
  const Qkv first{slice(in.q, 2, 0, 83), slice(in.k, 2, 0, 83), slice(in.v, 2, 0, 83)};
  check_equal(run(*v, shorter, first, {.parameters = &parameters}), slice(run(*v, longer, in, {.parameters = &parameters}), 2, 0, 83));
}
