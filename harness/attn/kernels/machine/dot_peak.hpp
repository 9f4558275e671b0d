// The denominator of roofs whose products are made of bf16.
#pragma once

#include "attn/core/problem.hpp"

namespace attn::kernels {

// Independent vdpbf16ps on registers, no loads. Returns floating-point operations; 0 where has_bf16_dot() is false.
double probe_bf16_dot(index_t iterations);

}  // namespace attn::kernels
