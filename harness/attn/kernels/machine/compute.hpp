// What the products of the softmax engine are made with, whatever their operands are stored as.
#pragma once

#include <string>
#include <string_view>

#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"

namespace attn::kernels {

// f32: fused multiply-adds of floats; what is stored otherwise is widened, which rounds nothing.
// bf16_dot: vdpbf16ps, pairs of bf16 added to floats; weights are rounded to bf16 before they meet the values.
enum class Compute { f32, bf16_dot };
std::string_view to_string(Compute);
Result<Compute> parse_compute(std::string_view name);

// This machine has vdpbf16ps, this build the kernels for it, and the chosen instruction set is AVX-512.
bool has_bf16_dot();

// Few queries meet a long cache, as in the steps of a decode: work of the rows engine, which multiplies floats and knows no masks.
bool meets_few_rows(const Problem&);

// What a plan of the problem computes with: bf16_dot where Q, K and V are bf16, there is no mask, the pass is forward, queries are many, and this
// machine has it; else f32. A plan keeps what was true when it was made.
Compute compute_of(const Problem&);

// For the whole process, before plans are made: `f32` holds for every problem, `bf16_dot` is the choice as it is without. An empty
// name returns to that. Refused: names that are none, and bf16_dot where has_bf16_dot() is false.
Status force_compute(std::string_view name);

}  // namespace attn::kernels
