#include "edges.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("gat: conforms, with every rule for loops and repeated edges") { check_conforms_by_rules("gat"); }

TEST_CASE("gat: a node without neighbours gives zeros, one with one neighbour its value") { check_lone_nodes("gat"); }

TEST_CASE("gat: every edge twice changes nothing, one edge twice counts twice unless told once") { check_repeated_edges("gat"); }

TEST_CASE("gat: parts that are not connected do not see each other") { check_parts_apart("gat"); }

TEST_CASE("gat: without a weight for the scores it is the mean of the neighbours") { check_mean_of_neighbours("gat", {"a", "b"}); }

TEST_CASE("gat: by hand, the score leaks where it is negative") {
  Problem p = square(2, 1);
  p.heads = p.kv_heads = 1;
  Trial t = on_graph("gat:loops=given", p, 2, [](index_t, index_t e) { return e; });
  t.parameters.set("a", Tensor<float>({1, 1}, {1})), t.parameters.set("b", Tensor<float>({1, 1}, {2}));
  t.q = Tensor<float>({1, 1, 2, 1}, {0, 3}), t.k = Tensor<float>({1, 1, 2, 1}, {-1, 1}), t.v = Tensor<float>({1, 1, 2, 1}, {0, 1});
  // Node 0: 0 - 2 and 0 + 2, of which the first leaks to -0.4; node 1: 1 and 5.
  CHECK(t.run()(0, 0, 0, 0) == Approx(1 / (1 + std::exp(-2.4))));
  CHECK(t.run()(0, 0, 1, 0) == Approx(1 / (1 + std::exp(-4.0))));
}
