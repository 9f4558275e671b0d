#include "attn/kernels/machine/low_precision.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace attn::kernels {

namespace {

enum Register { eax, ebx, ecx, edx };

// A condition, and what is missing where it does not hold.
struct Step {
  bool holds;
  const char* missing;
};

Ability ability(std::string name, std::initializer_list<Step> steps) {
  for (const Step& step : steps) {
    if (!step.holds) return {std::move(name), step.missing};
  }
  return {std::move(name), ""};
}

}  // namespace

MachineWords this_machine() {
#if defined(__x86_64__)
  MachineWords machine;
  machine.cpuid = [](std::uint32_t leaf, std::uint32_t subleaf) {
    std::array<std::uint32_t, 4> words{};
    __get_cpuid_count(leaf, subleaf, &words[eax], &words[ebx], &words[ecx], &words[edx]);  // zeros beyond the last leaf
    return words;
  };
  constexpr std::uint32_t osxsave = 27;
  if (machine.cpuid(1, 0)[ecx] >> osxsave & 1) {
    std::uint32_t low = 0, high = 0;
    asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    machine.xcr0 = std::uint64_t{high} << 32 | low;
  }
  machine.tiles_permitted = [] {
#if defined(__linux__)
    constexpr long ask_for_feature = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
    return ::syscall(SYS_arch_prctl, ask_for_feature, tile_data) == 0;
#else
    return false;
#endif
  };
  return machine;
#else
  return {[](std::uint32_t, std::uint32_t) { return std::array<std::uint32_t, 4>{}; }, 0, [] { return false; }};
#endif
}

std::vector<Ability> low_precision(const MachineWords& machine) {
  const auto has = [&](std::uint32_t leaf, std::uint32_t subleaf, Register word, int bit) {
    return (machine.cpuid(leaf, subleaf)[word] >> bit & 1) != 0;
  };
  const auto keeps = [&](std::uint64_t registers) { return (machine.xcr0 & registers) == registers; };
  constexpr std::uint64_t ymm = 0x6, zmm = 0xe6, tiles = 0x60000;
  const bool tile = has(7, 0, edx, 24);
  return {ability("f16 conversion", {{has(1, 0, ecx, 29), "the processor has no F16C (CPUID 1, ECX bit 29)"},
                                     {keeps(ymm), "the system does not keep vectors of 256 bits (XCR0 bits 1 and 2)"}}),
          ability("bf16 dot product", {{has(7, 0, ebx, 16), "the processor has no AVX-512 (CPUID 7.0, EBX bit 16)"},
                                       {has(7, 1, eax, 5), "the processor has no AVX512_BF16 (CPUID 7.1, EAX bit 5)"},
                                       {keeps(zmm), "the system does not keep vectors of 512 bits (XCR0 bits 5 to 7)"}}),
          ability("AMX",
                  {{tile, "the processor has no AMX_TILE (CPUID 7.0, EDX bit 24)"},
                   {has(7, 0, edx, 22), "the processor has no AMX_BF16 (CPUID 7.0, EDX bit 22)"},
                   {keeps(tiles), "the system does not keep tiles (XCR0 bits 17 and 18)"},
                   {tile && machine.cpuid(0x1d, 0)[eax] >= 1, "there is no palette of tiles (CPUID 1D), as under some hypervisors"},
                   {tile && machine.tiles_permitted(), "the system refuses tile data to this process (arch_prctl)"}})};
}

}  // namespace attn::kernels
