// A variant of the tree by its name, with options if need be.
#pragma once

#include <memory>
#include <string>

#include "attn/variant/registry.hpp"
#include "catch.hpp"

namespace attn::test {

inline std::unique_ptr<Variant> variant_of(const std::string& name) {
  Registry registry;
  register_builtin_variants(registry);
  auto variant = registry.configure(name);
  REQUIRE(variant);
  return *std::move(variant);
}

}  // namespace attn::test
