// attn_apply: one variant on somebody's Q, K and V, by the path that the sweep measures.
#pragma once

#include <cstdint>
#include <string>

#include "attn/core/result.hpp"
#include "attn/variant/parameters.hpp"

namespace attn {

// The program. 0: output written; 1: written, but the fast path misses its definition; 2: usage or bad input.
int apply_main(int argc, char** argv);

struct LoadedParameters {
  ParameterSet<float> set;
  bool loaded = false;  // false: drawn from the seed
};
// From DIR/<name>.npy where they are; where none is there, drawn from `seed` and saved there. Refuses arrays of another
// shape than declared, and some without the others.
Result<LoadedParameters> load_or_draw(const Parameters& specs, std::uint64_t seed, const std::string& folder);

}  // namespace attn
