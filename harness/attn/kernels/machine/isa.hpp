// Which instruction set the kernels run on. Kernels are compiled once for each target below (Highway, dynamic dispatch)
// and the best one that this machine has is taken, unless another is forced. What is taken here is the choice of core/isa.hpp, which
// everything else that computes obeys.
#pragma once

#include <string>
#include <vector>

#include "attn/core/result.hpp"

namespace attn::kernels {

// Targets that were compiled in and that this machine can run, best first: "avx512", "avx2", "neon", "scalar".
std::vector<std::string> available_isas();

// The target that kernels use from here on.
std::string active_isa();

// For the whole process, before kernels run in other threads. An empty name returns to the best one.
Status force_isa(const std::string& name);

// Floats in a vector of the active target.
int vector_lanes();

}  // namespace attn::kernels
