// What the engines take at their doors.
#pragma once

#include <array>

#include "attn/core/dtype.hpp"

namespace attn::kernels {

inline constexpr std::array engine_dtypes = {DType::f32, DType::bf16, DType::f16};  // of Q
inline constexpr std::array engine_kv_dtypes = {DType::f32, DType::bf16, DType::f16,
                                                DType::q8};  // of K and V; of q8, rows are whole blocks

}  // namespace attn::kernels
