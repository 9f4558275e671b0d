// What the engines take at their doors.
#pragma once

#include <array>

#include "attn/core/dtype.hpp"

namespace attn::kernels {

inline constexpr std::array engine_dtypes = {DType::f32};     // of Q
inline constexpr std::array engine_kv_dtypes = {DType::f32};  // of K and V

}  // namespace attn::kernels
