#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>

#include "support.hpp"

using namespace attn;

namespace {

InputSpec neighbours(index_t nodes, index_t degree) {
  return {.name = "neighbours",
          .extents = {1, 1, nodes, degree},
          .low = -1,
          .high = static_cast<double>(nodes) - 1,
          .drawn = [](double) { return -1.0; },
          .doc = "",
          .whole = true};
}

// The neighbours of each node.
std::vector<std::multiset<index_t>> graph(const std::string& name, index_t nodes, index_t degree, std::uint64_t seed = 1) {
  const Problem p = {.q_len = nodes, .kv_len = nodes, .head_dim = 8, .value_dim = 8};
  const auto named = input(name)->make_named(p, {neighbours(nodes, degree)}, seed);
  INFO((named ? std::string() : named.reason()));
  REQUIRE(named);
  const auto list = named->arrays["neighbours"].f32<4>();
  std::vector<std::multiset<index_t>> out(static_cast<std::size_t>(nodes));
  for (index_t i = 0; i < nodes; ++i) {
    for (index_t e = 0; e < degree; ++e)
      if (list(0, 0, i, e) >= 0) out[static_cast<std::size_t>(i)].insert(static_cast<index_t>(list(0, 0, i, e)));
  }
  return out;
}

std::string refused(const std::string& name) {
  const auto opened = parse_input(name);
  return opened ? "" : opened.reason();
}

}  // namespace

TEST_CASE("graph: edges go both ways, in every kind, and depend on the seed where they are drawn") {
  for (const std::string kind : {"ring", "grid", "regular", "smallworld", "molecules"}) {
    INFO(kind);
    const auto list = graph("graph:" + kind, 100, 16);
    for (index_t i = 0; i < 100; ++i)
      for (const index_t j : list[static_cast<std::size_t>(i)]) CHECK(list[static_cast<std::size_t>(j)].contains(i));
    CHECK(list == graph("graph:" + kind, 100, 16));
    CHECK((list == graph("graph:" + kind, 100, 16, 2)) == (kind == "ring" || kind == "grid"));
  }
}

TEST_CASE("graph: a ring has the nodes to both sides, a grid those around, a regular graph as many for each node") {
  CHECK(graph("graph:ring", 10, 4)[0] == std::multiset<index_t>{1, 2, 8, 9});
  CHECK(graph("graph:grid", 9, 4)[4] == std::multiset<index_t>{1, 3, 5, 7});
  CHECK(graph("graph:grid", 9, 4)[0] == std::multiset<index_t>{1, 3});
  for (const auto& list : graph("graph:regular", 101, 6)) CHECK(list.size() == 6);
}

TEST_CASE("graph: a molecule is connected, has two rings, and no bond to the next one") {
  const auto list = graph("graph:molecules", 48, 8);
  index_t bonds = 0;
  for (index_t i = 0; i < 24; ++i) {
    bonds += std::ssize(list[static_cast<std::size_t>(i)]);
    for (const index_t j : list[static_cast<std::size_t>(i)]) CHECK(j < 24);
  }
  CHECK(bonds == 2 * (23 + 2));
}

TEST_CASE("graph: a file of edges is read as it stands, of its nodes the first that are asked for") {
  const Scratch folder;
  const std::string file = folder.write("file.txt", "# a path and a loop\n0 1\n1,2\n\n3\t2\n3 3\n");
  const std::string name = "graph:" + file;
  const auto list = graph(name, 4, 3);
  CHECK(list[1] == std::multiset<index_t>{0, 2});
  CHECK(list[3] == std::multiset<index_t>{2, 3});
  CHECK(graph(name, 2, 3)[1] == std::multiset<index_t>{0});
  Problem wish = {.q_len = 100, .kv_len = 100, .head_dim = 8, .value_dim = 8};
  CHECK(input(name)->adapt(wish)->kv_len == 4);
}

TEST_CASE("graph: what is no graph is refused in a sentence") {
  const Scratch folder;
  CHECK(refused("graph").find("names no graph; accepted: ring, grid, regular, smallworld, molecules or a file") !=
        std::string::npos);
  CHECK(refused("graph:/no/such").find("accepted: ring") != std::string::npos);
  for (const char* text : {"0 1\n1 -2\n", "0 1\n1 2 3\n", "0 1\n1 x\n", "0 1\n0 16777216\n"}) {
    const std::string file = folder.write("file.txt", text);
    CHECK(refused("graph:" + file).find(":2: ") != std::string::npos);
  }
  const std::string one_end = folder.write("one_end.txt", "0 1\n2\n");
  CHECK(refused("graph:" + one_end).find(":2: '2' is no edge; accepted: two nodes, 0..16777215") != std::string::npos);
  const std::string none = folder.write("none.txt", "# nothing\n");
  CHECK(refused("graph:" + none).find("has no edge") != std::string::npos);
}

TEST_CASE("graph: a node with more neighbours than a variant takes is refused with the degree that it needs") {
  const Scratch folder;
  const std::string star = folder.write("star.txt", "0 1\n0 2\n0 3\n");
  const Problem p = {.q_len = 4, .kv_len = 4, .head_dim = 8, .value_dim = 8};
  const auto named = input("graph:" + star)->make_named(p, {neighbours(4, 2)}, 1);
  REQUIRE(!named);
  CHECK(named.reason().find("node 0 has 3 neighbours; accepted: 2 at most, or a variant's degree=3") != std::string::npos);
}

TEST_CASE("graph: numbered by reverse Cuthill and McKee, a ring in any order has its neighbours near, and is the same ring") {
  const Scratch folder;
  std::string text;
  for (index_t i = 0; i < 101; ++i) text += std::to_string(7 * i % 101) + " " + std::to_string(7 * (i + 1) % 101) + "\n";
  const std::string name = "graph:" + folder.write("ring.txt", text);
  const auto farthest = [](const auto& list) {
    index_t most = 0;
    for (index_t i = 0; i < std::ssize(list); ++i)
      for (const index_t j : list[static_cast<std::size_t>(i)]) most = std::max(most, std::abs(i - j));
    return most;
  };
  CHECK(farthest(graph(name, 101, 2)) > 90);
  const auto list = graph(name + ",order=rcm", 101, 2);
  CHECK(farthest(list) == 2);
  std::set<index_t> reached{0};
  for (index_t round = 0; round < 101; ++round)
    for (const index_t i : std::set<index_t>(reached))
      reached.insert(list[static_cast<std::size_t>(i)].begin(), list[static_cast<std::size_t>(i)].end());
  CHECK(reached.size() == 101);
  CHECK(farthest(graph("graph:regular,order=rcm", 200, 4)) < farthest(graph("graph:regular", 200, 4)));
  CHECK(input(name + ",order=rcm")->name() == name + ",order=rcm");
}

TEST_CASE("graph: an expander adds as many edges to each node, whatever the graph, and brings far nodes near") {
  const auto steps = [](const auto& list) {  // from node 0 to the farthest
    std::set<index_t> reached{0};
    index_t count = 0;
    for (; std::ssize(reached) < std::ssize(list); ++count)
      for (const index_t i : std::set<index_t>(reached))
        reached.insert(list[static_cast<std::size_t>(i)].begin(), list[static_cast<std::size_t>(i)].end());
    return count;
  };
  const auto ring = graph("graph:ring", 256, 2);
  CHECK(steps(ring) == 128);
  const auto wired = graph("graph:ring,expander=4", 256, 6);
  for (const auto& list : wired) CHECK(list.size() == 6);
  CHECK(steps(wired) < 10);
  CHECK(input("graph:grid,order=rcm,expander=4")->name() == "graph:grid,expander=4,order=rcm");
  CHECK(refused("graph:ring,expander=3").find("accepted: expander=2, 4, ... 1024") != std::string::npos);
  CHECK(refused("graph:ring,order=up").find("accepted: order=rcm") != std::string::npos);
}
