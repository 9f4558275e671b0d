// What the engines take at their doors: every number type.
#pragma once

#include "attn/core/dtype.hpp"

namespace attn::kernels {

inline constexpr const auto& engine_dtypes = query_dtypes;      // of Q
inline constexpr const auto& engine_kv_dtypes = stored_dtypes;  // of K and V

}  // namespace attn::kernels
