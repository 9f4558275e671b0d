#include "attn/kernels/machine/low_precision.hpp"

#include <map>
#include <utility>

#include "attn/kernels/machine/compute.hpp"
#include "attn/kernels/machine/dot_peak.hpp"
#include "attn/kernels/machine/isa.hpp"
#include "catch.hpp"

namespace {

using namespace attn::kernels;

// A machine that has everything, of which a test takes something away.
struct Machine {
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::array<std::uint32_t, 4>> leaves = {
      {{1, 0}, {0, 0, 1u << 29, 0}},
      {{7, 0}, {0, 1u << 16, 0, 1u << 24 | 1u << 22}},
      {{7, 1}, {1u << 5, 0, 0, 0}},
      {{0x1d, 0}, {1, 0, 0, 0}}};
  std::uint64_t xcr0 = 0x600e6;
  bool permitted = true;

  std::string missing(const std::string& name) const {
    const MachineWords words{[this](std::uint32_t leaf, std::uint32_t subleaf) {
                               const auto found = leaves.find({leaf, subleaf});
                               return found == leaves.end() ? std::array<std::uint32_t, 4>{} : found->second;
                             },
                             xcr0, [this] { return permitted; }};
    for (const Ability& ability : low_precision(words)) {
      if (ability.name == name) return ability.missing;
    }
    FAIL("nothing is said of " << name);
    return "";
  }
};

bool says(const std::string& text, const char* word) { return text.find(word) != std::string::npos; }

}  // namespace

TEST_CASE("a machine that has all steps has the ability") {
  for (const char* name : {"f16 conversion", "bf16 dot product", "AMX"}) CHECK(Machine().missing(name) == "");
}

TEST_CASE("the first step that fails is told") {
  Machine machine;
  machine.permitted = false;
  CHECK(says(machine.missing("AMX"), "arch_prctl"));
  machine.leaves[{0x1d, 0}] = {};
  CHECK(says(machine.missing("AMX"), "palette"));
  machine.xcr0 &= ~std::uint64_t{1 << 18};
  CHECK(says(machine.missing("AMX"), "XCR0 bits 17 and 18"));
  machine.leaves[{7, 0}][3] = 1u << 24;
  CHECK(says(machine.missing("AMX"), "AMX_BF16"));
  machine.leaves[{7, 0}][3] = 0;
  CHECK(says(machine.missing("AMX"), "AMX_TILE"));
  CHECK(machine.missing("bf16 dot product") == "");
  machine.xcr0 = 0x6;
  CHECK(says(machine.missing("bf16 dot product"), "512 bits"));
  machine.leaves[{7, 1}] = {};
  CHECK(says(machine.missing("bf16 dot product"), "AVX512_BF16"));
  CHECK(machine.missing("f16 conversion") == "");
  machine.xcr0 = 0;
  CHECK(says(machine.missing("f16 conversion"), "256 bits"));
}

TEST_CASE("this machine says of its dot product what the kernels find") {
  REQUIRE(force_isa(""));
  for (const Ability& ability : low_precision(this_machine())) {
    if (ability.name == "bf16 dot product") CHECK(ability.missing.empty() == has_bf16_dot());
  }
  CHECK((probe_bf16_dot(10) > 0) == has_bf16_dot());
  REQUIRE(force_isa("scalar"));
  CHECK(probe_bf16_dot(10) == 0);
  REQUIRE(force_isa(""));
}
