#include "attn/program/renamed.hpp"

#include <cstdio>

#include "attn/core/text.hpp"
#include "attn/record/sink.hpp"

namespace attn {

void tell_of_renamed(const Registry& registry, const std::vector<std::string>& names, const std::string& program) {
  if (const std::string note = registry.renamed(join(names, ",")); !note.empty()) tell(stderr, program + ": " + note + "\n");
}

}  // namespace attn
