// The tile of tile.hpp whose products are of pairs of bf16: vdpbf16ps (AVX512_BF16), 16 lanes of floats that each take two products.
//
// Queries stand in the lanes. For the scores pairs lie along head_dim: K is read by broadcast of 32 bits from its rows as they are, Q
// packed so once for a tile exactly as given, and the scale is applied to the score, in floats: a scaled Q would be rounded again.
// For the values pairs lie along the keys: two rows of V interleaved (pack_pairs) and two weights, rounded to nearest even. What the
// weights are divided by is the sum of the rounded ones by the same products, so that values of 1 come to exactly 1, and what
// rounding does to all weights alike cancels.
//
// Rows of a KeyBatch are here: k[j] head_dim bf16, and v[j] of even j the pairs of keys j and j + 1. Rows that `load` takes are bf16.
// `factor` may not be negative. References are whole numbers in log2 units; one moves to its lane's largest score when the weights of a
// batch add up to more than 4096, or those of a lane's first batch to nearly nothing.
#pragma once

#include "attn/kernels/softmax/tile.hpp"

namespace attn::kernels {

// Tiles of 1, 2 or 3 vectors of 16 lanes: by the instruction where the machine has it and AVX-512 is chosen, else by the emulation.
const TileOps& bf16_tile_ops(int vectors);

// The same in plain C++, to the bit: what the instruction is tested against, and the path where it is missing.
const TileOps& emulated_bf16_tile_ops(int vectors);

// The instruction on 16 lanes, and in plain C++: c + odd a * odd b, then + even a * even b, each a fused multiply-add rounded to nearest
// even, where denormal numbers are zero. Arrays of 16 floats and 32 bf16. The first one needs the instruction.
void bf16_dot(const float* c, const bf16* a, const bf16* b, float* to);
void emulated_bf16_dot(const float* c, const bf16* a, const bf16* b, float* to);

// to[j / 2 * stride + x] = element x of row j, then that of row j + 1: `count` rows, an even number, of n bf16.
void pack_pairs(const std::byte* const* rows, index_t count, index_t n, std::uint32_t* to, index_t stride);

}  // namespace attn::kernels
