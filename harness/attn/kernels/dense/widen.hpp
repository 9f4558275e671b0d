// Stored numbers as floats.
#pragma once

#include "attn/core/dtype.hpp"

namespace attn::kernels {

// `count` elements in a row, whole blocks of them, as floats: the same numbers on every instruction set.
void widen(DType dtype, const void* from, index_t count, float* to);

}  // namespace attn::kernels
