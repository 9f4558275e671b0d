#include "edges.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("gatv2: conforms, with every rule for loops and repeated edges") { check_conforms_by_rules("gatv2"); }

TEST_CASE("gatv2: a node without neighbours gives zeros, one with one neighbour its value") { check_lone_nodes("gatv2"); }

TEST_CASE("gatv2: every edge twice changes nothing, one edge twice counts twice unless told once") {
  check_repeated_edges("gatv2");
}

TEST_CASE("gatv2: parts that are not connected do not see each other") { check_parts_apart("gatv2"); }

TEST_CASE("gatv2: without a weight for the scores it is the mean of the neighbours") { check_mean_of_neighbours("gatv2", {"a"}); }
