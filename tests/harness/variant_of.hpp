// The variants of the tree, and one by its name, with options if need be.
#pragma once

#include <memory>
#include <string>

#include "attn/variant/registry.hpp"
#include "catch.hpp"

namespace attn::test {

inline const Registry& registry() {
  static const auto filled = [] {
    auto r = std::make_unique<Registry>();
    register_builtin_variants(*r);
    return r;
  }();
  return *filled;
}

inline std::unique_ptr<Variant> variant_of(const std::string& name) {
  auto variant = registry().configure(name);
  REQUIRE(variant);
  return *std::move(variant);
}

}  // namespace attn::test
