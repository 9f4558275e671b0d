// What a cell takes of memory, before anything of it is made.
#pragma once

#include <optional>
#include <string>

#include "attn/cell/cell.hpp"
#include "attn/core/result.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// Bytes.
struct Needs {
  index_t inputs = 0;  // q, k, v, what the variant reads beside them, and the output
  index_t parameters = 0;
  index_t state = 0;                 // of a decode
  std::optional<index_t> workspace;  // once it is planned; a guest's is its own

  index_t total() const { return inputs + parameters + state + workspace.value_or(0); }
};

// Of the scope's mixer. Refused where the variant refuses the problem.
Result<Needs> needs_before_planning(const Registry& registry, const Cell& cell);
// Plans too, on the instruction set of this process.
Result<Needs> needs_of(const Registry& registry, const Cell& cell);

// Between processes.
std::string to_json(const Needs& needs);
Needs needs_from_json(const std::string& text);  // throws std::exception when it is torn

}  // namespace attn
