#include "attn/kernels/machine/isa.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/machine/isa.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
inline int64_t Target() { return HWY_TARGET; }
inline int Lanes() { return static_cast<int>(hwy::HWY_NAMESPACE::Lanes(hwy::HWY_NAMESPACE::ScalableTag<float>())); }
}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>
#include <array>
#include <utility>

#include "attn/core/isa.hpp"
#include "attn/core/text.hpp"

namespace attn::kernels {

HWY_EXPORT(Target);
HWY_EXPORT(Lanes);

namespace {

constexpr std::array targets = {std::pair{Isa::avx512, int64_t{HWY_AVX3}}, std::pair{Isa::avx2, int64_t{HWY_AVX2}},
                                std::pair{Isa::neon, int64_t{HWY_NEON}}, std::pair{Isa::scalar, int64_t{HWY_BASELINE_SCALAR}}};

// Of the machine, whatever is forced.
int64_t supported_targets() {
  static const int64_t supported = [] {
    hwy::SetSupportedTargetsForTest(0);
    return hwy::SupportedTargets() | HWY_BASELINE_SCALAR;
  }();
  return supported;
}

std::vector<Isa> available() {
  std::vector<Isa> list = machine_isas();
  std::erase_if(list, [](Isa isa) {
    const auto own = std::find_if(targets.begin(), targets.end(), [&](const auto& pair) { return pair.first == isa; });
    return (own->second & supported_targets() & HWY_TARGETS) == 0;
  });
  return list;
}

// avx512 is Ice Lake's, too, where a kernel is compiled for it and the machine has it.
void take(Isa isa) {
  for (const auto& [candidate, target] : targets) {
    if (candidate != isa) continue;
    hwy::SetSupportedTargetsForTest(target | (isa == Isa::avx512 ? supported_targets() & HWY_AVX3_DL : 0));
  }
  choose_isa(isa);
}

// Before anything is forced: the best one that the kernels have too.
[[maybe_unused]] const bool taken = (take(available().front()), true);

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> list;
  for (const Isa isa : available()) list.push_back(to_string(isa));
  return list;
}

std::string active_isa() {
  const int64_t active = HWY_DYNAMIC_DISPATCH(Target)();
  for (const auto& [isa, target] : targets) {
    if (target == active) return to_string(isa);
  }
  return hwy::TargetName(active);
}

Status force_isa(const std::string& name) {
  const std::vector<Isa> list = available();
  for (const Isa isa : list) {
    if (name.empty() || name == to_string(isa)) return take(isa), Status{};
  }
  return refuse("instruction set '" + name + "' is not available; this machine and build have " + join(available_isas(), ", "));
}

int vector_lanes() { return HWY_DYNAMIC_DISPATCH(Lanes)(); }

}  // namespace attn::kernels

#endif
