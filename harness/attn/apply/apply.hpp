// attn_apply: one variant on somebody's Q, K and V, by the path that the sweep measures.
#pragma once

#include <string>

#include "attn/cell/cell_run.hpp"
#include "attn/core/result.hpp"
#include "attn/variant/parameters.hpp"

namespace attn {

// The program. 0: output written; 1: written, but the fast path misses its definition; 2: usage or bad input; 6: not written.
int apply_main(int argc, char** argv);

struct LoadedParameters {
  ParameterSet<float> set;
  bool loaded = false;  // false: drawn from the cell's seed, or fitted to its tensors
};
// From DIR/<name>.npy where they are; where none is there, drawn or fitted and saved there. Refuses arrays of another
// shape than declared, and some without the others.
Result<LoadedParameters> load_or_draw(const CellRun& run, const std::string& folder);

}  // namespace attn
