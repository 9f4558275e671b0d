#include "attn/core/problem.hpp"

namespace attn {

std::string_view to_string(Pass pass) {
  switch (pass) {
    case Pass::forward: return "forward";
    case Pass::forward_backward: return "forward_backward";
    case Pass::decode: return "decode";
  }
  return "";
}

Result<Pass> parse_pass(std::string_view name) {
  for (const Pass pass : {Pass::forward, Pass::forward_backward, Pass::decode}) {
    if (to_string(pass) == name) return pass;
  }
  return refuse("'" + std::string(name) + "' is no pass; accepted: forward, forward_backward, decode");
}

}  // namespace attn
