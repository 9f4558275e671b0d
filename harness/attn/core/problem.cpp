#include "attn/core/problem.hpp"

namespace attn {

std::string_view to_string(Pass pass) { return pass == Pass::forward ? "forward" : "forward_backward"; }

Result<Pass> parse_pass(std::string_view name) {
  for (const Pass pass : {Pass::forward, Pass::forward_backward}) {
    if (to_string(pass) == name) return pass;
  }
  return refuse("'" + std::string(name) + "' is no pass; accepted: forward, forward_backward");
}

}  // namespace attn
