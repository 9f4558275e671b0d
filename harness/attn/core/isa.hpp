// The instruction set that this process computes with. One choice: the kernels, the products of definitions and of inputs, and
// oneDNN obey it.
#pragma once

#include <string>
#include <vector>

namespace attn {

// avx2: with FMA. avx512: F, BW, CD, DQ and VL, as every server processor with AVX-512 has them.
enum class Isa { scalar, neon, avx2, avx512 };

std::string to_string(Isa isa);

// What this machine can run, best first; the last is scalar.
std::vector<Isa> machine_isas();

// The choice: the machine's best until another is made.
Isa chosen_isa();

// For the whole process, before other threads compute; one of machine_isas(). What programs call is kernels::force_isa, which knows
// what the kernels were compiled for and tells Highway.
void choose_isa(Isa isa);

}  // namespace attn
