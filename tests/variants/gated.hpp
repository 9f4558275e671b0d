// What tests of the gated family ask of every page.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <tuple>

#include "run.hpp"
#include "trial.hpp"

namespace attn::test {

// At every length around a panel; queries at the end of longer keys, before any key, and heads that share keys.
inline void check_around_panels(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    for (const index_t n : {1, 2, 15, 16, 17, 31, 33, 64, 300}) {
      const Trial t(name, square(n, n == 33 ? 7 : 40, true, 3));
      INFO(name << " N=" << n);
      CHECK(distance(t.run(), t.definition()) < 1e-6);
    }
    for (const auto& [n, m, kv_heads] : {std::tuple{37, 50, 4}, {1, 30, 2}, {60, 41, 1}}) {
      Problem p = square(n, 24, true, 4);
      p.kv_len = m;
      p.kv_heads = kv_heads;
      const Trial t(name, p);
      INFO(name << " N=" << n << " M=" << m);
      CHECK(distance(t.run(), t.definition()) < 1e-6);
      CHECK(distance(t.run(4), t.run()) == 0);
    }
  }
}

// The properties of these ids.
inline void check_properties(const std::string& name, std::initializer_list<std::string_view> ids) {
  std::size_t checked = 0;
  for (const Property& property : properties()) {
    if (std::ranges::find(ids, property.id) == ids.end()) continue;
    CHECK(check_property(*configure(name), property, {}).failure == "");
    ++checked;
  }
  CHECK(checked == ids.size());
}

}  // namespace attn::test
