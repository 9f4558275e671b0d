#include "edges.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("graph: conforms, with every rule for loops and repeated edges") { check_conforms_by_rules("graph"); }

TEST_CASE("graph: a node without neighbours gives zeros, one with one neighbour its value") { check_lone_nodes("graph"); }

TEST_CASE("graph: every edge twice changes nothing, one edge twice counts twice unless told once") {
  check_repeated_edges("graph");
}

TEST_CASE("graph: parts that are not connected do not see each other") { check_parts_apart("graph"); }

TEST_CASE("graph: of the complete graph it is full attention") {
  for (const bool causal : {false, true}) {
    Problem p = square(70, 24, causal);
    p.heads = 4;
    const Trial t = on_graph("graph", p, 70, [](index_t, index_t e) { return e; });
    const Trial full("full", p);
    CHECK(distance(t.run(), full.run()) < 1e-6);
  }
}

TEST_CASE("graph: of nodes beside their neighbours on a line it is a window") {
  const Problem p = square(100, 16);
  const Trial t = on_graph("graph", p, 7, [](index_t i, index_t e) { return i + e - 3; });  // beyond the ends there is nobody
  CHECK(distance(t.run(), Trial("local:left=3,right=3", p).run()) < 1e-6);
}

TEST_CASE("graph: new numbers for the nodes permute the rows") {
  const Problem p = square(50, 8);
  const auto node = [](index_t i, index_t e) { return (i * 11 + e * e + 1) % 50; };
  const auto moved = [](index_t i) { return (i * 7 + 3) % 50; };  // old number -> new
  Trial t = on_graph("graph", p, 5, node), s = on_graph("graph", p, 5, node);
  Indices old({50});
  std::vector<index_t> from(50);
  for (index_t i = 0; i < 50; ++i) from[static_cast<std::size_t>(moved(i))] = i;
  const auto permute = [&](const Tensor<float>& x) {
    return tabulate<float>(
        x.shape(), [&](index_t b, index_t h, index_t i, index_t c) { return x(b, h, from[static_cast<std::size_t>(i)], c); });
  };
  s.q = permute(t.q), s.k = permute(t.k), s.v = permute(t.v);
  connect(s, 5, [&](index_t i, index_t e) { return moved(node(from[static_cast<std::size_t>(i)], e)); });
  CHECK(distance(s.run(), permute(t.run())) < 1e-6);
}
