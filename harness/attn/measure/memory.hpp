// Resident memory of this process, and what workers may take.
#pragma once

#include "attn/core/problem.hpp"
#include "attn/exec/resident.hpp"

namespace attn {

// Of all workers together, unless one is asked for: four fifths of what is available (exec/limits.hpp).
index_t default_memory_limit_bytes();

}  // namespace attn
