// Variants from shared libraries.
#pragma once

#include <string>

#include "attn/core/result.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// Loads the library, checks its ABI version and build tag and enters its variant; the library stays loaded.
Status load_plugin(const std::string& path, Registry& registry);
// One after the other, until one is refused.
Status load_plugins(const std::vector<std::string>& paths, Registry& registry);

}  // namespace attn
