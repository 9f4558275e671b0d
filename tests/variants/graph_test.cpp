#include <cmath>
#include <limits>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

// node(i, e): the e-th neighbour of node i.
template <class F>
void connect(Trial& t, index_t degree, F node) {
  t.more.insert_or_assign("neighbours", tabulate<float>({t.p.batch, 1, t.p.kv_len, degree},
                                                        [&](index_t, index_t, index_t i, index_t e) { return node(i, e); }));
}
template <class F>
Trial graph(const std::string& name, const Problem& p, index_t degree, F node) {
  Trial t(name + (name.find(':') == std::string::npos ? ":" : ",") + "degree=" + std::to_string(degree), p);
  connect(t, degree, node);
  return t;
}

const char* const all[] = {"graph", "gat", "gatv2"};

}  // namespace

TEST_CASE("graph, gat, gatv2: conform, with every rule for loops and repeated edges") {
  for (const char* name : all) {
    for (const char* options : {":degree=5,loops=none", ":degree=33,loops=added,once=yes", ":degree=9,loops=given,once=yes"})
      check_conforms(std::string(name) + options);
  }
}

TEST_CASE("graph: of the complete graph it is full attention") {
  for (const bool causal : {false, true}) {
    Problem p = square(70, 24, causal);
    p.heads = 4;
    const Trial t = graph("graph", p, 70, [](index_t, index_t e) { return e; });
    const Trial full("full", p);
    CHECK(distance(t.run(), full.run()) < 1e-6);
  }
}

TEST_CASE("graph: of nodes beside their neighbours on a line it is a window") {
  const Problem p = square(100, 16);
  const Trial t = graph("graph", p, 7, [](index_t i, index_t e) { return i + e - 3; });  // beyond the ends there is nobody
  CHECK(distance(t.run(), Trial("local:left=3,right=3", p).run()) < 1e-6);
}

TEST_CASE("graph, gat, gatv2: a node without neighbours gives zeros, one with one neighbour its value") {
  for (const std::string name : all) {
    const Trial t = graph(name + ":loops=none", square(20, 8), 3,
                          [](index_t i, index_t e) { return i == 4 || e > 0 ? index_t{-1} : (i + 5) % 20; });
    const Tensor<float> out = t.run();
    for (index_t h = 0; h < t.p.heads; ++h) {
      for (index_t c = 0; c < 8; ++c) {
        CHECK(out(0, h, 4, c) == 0.0f);
        CHECK(out(0, h, 7, c) == t.v(0, h, 12, c));
      }
    }
  }
}

TEST_CASE("graph, gat, gatv2: every edge twice changes nothing, one edge twice counts twice unless told once") {
  const Problem p = square(30, 8);
  const auto once = [](index_t i, index_t e) { return (i * 7 + e * 3) % 30; };
  for (const std::string name : all) {
    const Tensor<float> out = graph(name, p, 4, once).run();
    CHECK(distance(graph(name + ":loops=none", p, 8, [&](index_t i, index_t e) { return once(i, e / 2); }).run(),
                   graph(name + ":loops=none", p, 4, once).run()) < 1e-6);
    const auto first_twice = [&](index_t i, index_t e) { return once(i, std::max<index_t>(0, e - 1)); };
    CHECK(distance(graph(name, p, 5, first_twice).run(), out) > 1e-3);
    CHECK(distance(graph(name + ":once=yes", p, 5, first_twice).run(), out) < 1e-6);
  }
}

TEST_CASE("graph, gat, gatv2: parts that are not connected do not see each other") {
  for (const char* name : all) {
    Trial t = graph(name, square(40, 8), 4, [](index_t i, index_t e) { return i / 20 * 20 + (i * 3 + e * 7) % 20; });
    const Tensor<float> v = t.v;
    t.v = tabulate<float>(v.shape(), [&](index_t b, index_t h, index_t j, index_t c) {
      return j >= 20 && c == 0 ? std::numeric_limits<float>::quiet_NaN() : v(b, h, j, c);
    });
    const Tensor<float> out = t.run();
    for (index_t h = 0; h < t.p.heads; ++h) {
      for (index_t i = 0; i < 20; ++i) CHECK(std::isfinite(out(0, h, i, 0)));
      CHECK(std::isnan(out(0, h, 25, 0)));
    }
  }
}

TEST_CASE("graph: new numbers for the nodes permute the rows") {
  const Problem p = square(50, 8);
  const auto node = [](index_t i, index_t e) { return (i * 11 + e * e + 1) % 50; };
  const auto moved = [](index_t i) { return (i * 7 + 3) % 50; };  // old number -> new
  Trial t = graph("graph", p, 5, node), s = graph("graph", p, 5, node);
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

TEST_CASE("gat, gatv2: without a weight for the scores it is the mean of the neighbours") {
  for (const char* name : all) {
    if (std::string(name) == "graph") continue;
    Trial t = graph(std::string(name) + ":loops=none", square(30, 8), 2, [](index_t i, index_t e) { return (i + 1 + e * 4) % 30; });
    for (const char* weight : {"a", "b"}) {
      if (std::string(name) == "gatv2" && *weight == 'b') continue;
      t.parameters.set(weight, zeros<float>({t.p.heads, 8}));
    }
    const Tensor<float> out = t.run();
    CHECK(out(0, 1, 3, 2) == Approx((t.v(0, 1, 4, 2) + t.v(0, 1, 8, 2)) / 2));
  }
}

TEST_CASE("gat: by hand, the score leaks where it is negative") {
  Problem p = square(2, 1);
  p.heads = p.kv_heads = 1;
  Trial t = graph("gat:loops=given", p, 2, [](index_t, index_t e) { return e; });
  t.parameters.set("a", Tensor<float>({1, 1}, {1})), t.parameters.set("b", Tensor<float>({1, 1}, {2}));
  t.q = Tensor<float>({1, 1, 2, 1}, {0, 3}), t.k = Tensor<float>({1, 1, 2, 1}, {-1, 1}), t.v = Tensor<float>({1, 1, 2, 1}, {0, 1});
  // Node 0: 0 - 2 and 0 + 2, of which the first leaks to -0.4; node 1: 1 and 5.
  CHECK(t.run()(0, 0, 0, 0) == Approx(1 / (1 + std::exp(-2.4))));
  CHECK(t.run()(0, 0, 1, 0) == Approx(1 / (1 + std::exp(-4.0))));
}
