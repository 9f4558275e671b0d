// A variant that only a guest knows.
#pragma once

#include <memory>

#include "attn/guest/host.hpp"

namespace attn {

std::unique_ptr<VariantType> own_variant_type(std::shared_ptr<GuestHost> host, const GuestVariant& variant);

}  // namespace attn
