// Stands in for the generated function of the tree.
#include "attn/variant/registry.hpp"

namespace attn {

void register_full(Registry& registry, const std::string& family);
void register_fresh_idea(Registry& registry, const std::string& family);

void register_builtin_variants(Registry& registry) {
  register_full(registry, "scores");
  register_fresh_idea(registry, "demo");
}

}  // namespace attn
