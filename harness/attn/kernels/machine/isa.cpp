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

#include <array>
#include <utility>

#include "attn/core/text.hpp"

namespace attn::kernels {

HWY_EXPORT(Target);
HWY_EXPORT(Lanes);

namespace {

constexpr std::array names = {std::pair{int64_t{HWY_AVX3}, "avx512"}, std::pair{int64_t{HWY_AVX2}, "avx2"},
                              std::pair{int64_t{HWY_NEON}, "neon"}, std::pair{int64_t{HWY_BASELINE_SCALAR}, "scalar"}};

// avx512 is Ice Lake's, too, where a kernel is compiled for it and the machine has it.
void take(int64_t target) {
  hwy::SetSupportedTargetsForTest(0);
  const int64_t later = target == HWY_AVX3 ? hwy::SupportedTargets() & HWY_AVX3_DL : 0;
  hwy::SetSupportedTargetsForTest(target | later);
}

}  // namespace

std::vector<std::string> available_isas() {
  // A forced target hides the others: ask the machine without it.
  const std::string forced = active_isa();
  hwy::SetSupportedTargetsForTest(0);
  const int64_t supported = hwy::SupportedTargets() | HWY_BASELINE_SCALAR;
  std::vector<std::string> list;
  for (const auto& [target, name] : names) {
    if (target & supported & HWY_TARGETS) list.emplace_back(name);
  }
  for (const auto& [target, name] : names) {
    if (name == forced && name != list.front()) take(target);
  }
  return list;
}

std::string active_isa() {
  const int64_t active = HWY_DYNAMIC_DISPATCH(Target)();
  for (const auto& [target, name] : names) {
    if (target == active) return name;
  }
  return hwy::TargetName(active);
}

Status force_isa(const std::string& name) {
  if (name.empty()) {
    hwy::SetSupportedTargetsForTest(0);
    return {};
  }
  const auto list = available_isas();
  for (const auto& [target, candidate] : names) {
    if (name != candidate) continue;
    for (const auto& available : list) {
      if (available == name) {
        take(target);
        return {};
      }
    }
  }
  return refuse("instruction set '" + name + "' is not available; this machine and build have " + join(list, ", "));
}

int vector_lanes() { return HWY_DYNAMIC_DISPATCH(Lanes)(); }

}  // namespace attn::kernels

#endif
