// Ids of before that are still taken.
#pragma once

#include <string>
#include <vector>

#include "attn/variant/registry.hpp"

namespace attn {

// Says on stderr what a variant in these lists of names is called now, once; nothing where none has another name.
void tell_of_renamed(const Registry& registry, const std::vector<std::string>& names, const std::string& program);

}  // namespace attn
