// Variants from shared libraries.
#pragma once

#include <string>
#include <vector>

#include "attn/core/result.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// What stands where a plugin and the tree have a variant of one id.
enum class Prefer { neither, plugin };

// Loads the library, checks its ABI version and build tag and enters its variant; the library stays loaded. A name that exists already is
// refused, unless the plugin is preferred.
Status load_plugin(const std::string& path, Registry& registry, Prefer prefer = Prefer::neither);
// One after the other, until one is refused. Of two plugins with one name the second is refused.
Status load_plugins(const std::vector<std::string>& paths, Registry& registry, Prefer prefer = Prefer::neither);

}  // namespace attn
