// A variant that only a guest knows.
#pragma once

#include <memory>
#include <string_view>

#include "attn/guest/host.hpp"

namespace attn {

inline constexpr std::string_view own_family = "guest";

std::unique_ptr<VariantType> own_variant_type(std::shared_ptr<GuestHost> host, const GuestVariant& variant);

}  // namespace attn
