// What the tests of variants along edges share: graphs for a trial, and what holds for each of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "run.hpp"
#include "trial.hpp"

namespace attn::test {

// node(i, e): the e-th neighbour of node i.
template <class F>
void connect(Trial& t, index_t degree, F node) {
  t.more.insert_or_assign("neighbours", tabulate<float>({t.p.batch, 1, t.p.kv_len, degree},
                                                        [&](index_t, index_t, index_t i, index_t e) { return node(i, e); }));
}
template <class F>
Trial on_graph(const std::string& name, const Problem& p, index_t degree, F node) {
  Trial t(name + (name.find(':') == std::string::npos ? ":" : ",") + "degree=" + std::to_string(degree), p);
  connect(t, degree, node);
  return t;
}

// Every rule for loops and repeated edges.
inline void check_conforms_by_rules(const std::string& name) {
  for (const char* options : {":degree=5,loops=none", ":degree=33,loops=added,once=yes", ":degree=9,loops=given,once=yes"})
    check_conforms(name + options);
}

inline void check_lone_nodes(const std::string& name) {
  const Trial t = on_graph(name + ":loops=none", square(20, 8), 3,
                           [](index_t i, index_t e) { return i == 4 || e > 0 ? index_t{-1} : (i + 5) % 20; });
  const Tensor<float> out = t.run();
  for (index_t h = 0; h < t.p.heads; ++h) {
    for (index_t c = 0; c < 8; ++c) {
      CHECK(out(0, h, 4, c) == 0.0f);
      CHECK(out(0, h, 7, c) == t.v(0, h, 12, c));
    }
  }
}

inline void check_repeated_edges(const std::string& name) {
  const Problem p = square(30, 8);
  const auto once = [](index_t i, index_t e) { return (i * 7 + e * 3) % 30; };
  const Tensor<float> out = on_graph(name, p, 4, once).run();
  CHECK(distance(on_graph(name + ":loops=none", p, 8, [&](index_t i, index_t e) { return once(i, e / 2); }).run(),
                 on_graph(name + ":loops=none", p, 4, once).run()) < 1e-6);
  const auto first_twice = [&](index_t i, index_t e) { return once(i, std::max<index_t>(0, e - 1)); };
  CHECK(distance(on_graph(name, p, 5, first_twice).run(), out) > 1e-3);
  CHECK(distance(on_graph(name + ":once=yes", p, 5, first_twice).run(), out) < 1e-6);
}

inline void check_parts_apart(const std::string& name) {
  Trial t = on_graph(name, square(40, 8), 4, [](index_t i, index_t e) { return i / 20 * 20 + (i * 3 + e * 7) % 20; });
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

// With these weights of zero.
inline void check_mean_of_neighbours(const std::string& name, std::initializer_list<const char*> weights) {
  Trial t = on_graph(name + ":loops=none", square(30, 8), 2, [](index_t i, index_t e) { return (i + 1 + e * 4) % 30; });
  for (const char* weight : weights) t.parameters.set(weight, zeros<float>({t.p.heads, 8}));
  const Tensor<float> out = t.run();
  CHECK(out(0, 1, 3, 2) == Approx((t.v(0, 1, 4, 2) + t.v(0, 1, 8, 2)) / 2));
}

}  // namespace attn::test
