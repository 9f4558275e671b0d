// What a machine has for numbers smaller than f32, and which step is missing where it has not.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace attn::kernels {

// What processor and system say of themselves.
struct MachineWords {
  std::function<std::array<std::uint32_t, 4>(std::uint32_t leaf, std::uint32_t subleaf)> cpuid;  // eax, ebx, ecx, edx
  std::uint64_t xcr0 = 0;                 // registers that the system keeps for its threads
  std::function<bool()> tiles_permitted;  // to this process, which asks for them
};
MachineWords this_machine();

struct Ability {
  std::string name;
  std::string missing;  // the first step that fails; empty: it is there
};

// Conversion of f16, dot products of bf16 in vectors, and tiles of bf16. Tiles take more than the processor's word: hypervisors have shown
// AMX with neither a palette nor the registers kept, and Linux grants the tile data to a process that asks
// (Documentation/arch/x86/xstate.rst).
std::vector<Ability> low_precision(const MachineWords& machine);

}  // namespace attn::kernels
