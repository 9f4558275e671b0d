// Learned tensors and random tables in a folder.
#pragma once

#include <string>

#include "attn/core/result.hpp"
#include "attn/exec/arena.hpp"
#include "attn/variant/parameters.hpp"

namespace attn {

struct LoadedParameters {
  ParameterSet<float> set;
  bool loaded = false;  // false: drawn
};
// From DIR/<name>.npy where they are; where none is there, drawn and saved there. Refuses arrays of another shape than declared, and some
// without the others.
Result<LoadedParameters> load_or_draw(const Parameters& specs, const std::string& folder, FunctionRef<ParameterSet<float>()> draw);

}  // namespace attn
