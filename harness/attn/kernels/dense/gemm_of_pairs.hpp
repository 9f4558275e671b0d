// Products of bf16 matrices, summed in floats, on the calling thread, without allocation: by vdpbf16ps where machine/compute.hpp says that it
// is there, else in plain C++ to the same bits. Denormal numbers are zero. oneDNN's
// matmul of bf16 is as fast, 221 GFLOP/s for 256 x 64 x 128 on a Zen 4 whose peak is 230, but a primitive is of one shape, is made before the
// run and brings a code generator's megabytes with it.
#pragma once

#include <cstdint>

#include "attn/core/dtype.hpp"
#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// c[m,n] = a[m,k] b[k,n], added to what c holds where `add`. k is even, n a multiple of 16.
//   a  rows of bf16, an even number of elements apart
//   b  pairs of rows as pack_pairs (softmax/tile_bf16.hpp) makes them: element x of rows 2j and 2j + 1 at j * b_stride + x
void gemm_of_pairs(index_t m, index_t n, index_t k, const bf16* a, index_t a_stride, const std::uint32_t* b, index_t b_stride,
                   Into c, bool add);
void emulated_gemm_of_pairs(index_t m, index_t n, index_t k, const bf16* a, index_t a_stride, const std::uint32_t* b,
                            index_t b_stride, Into c, bool add);

// Rounds to nearest even: `count` rows of n floats, into rows `stride` elements apart.
void round_to_bf16(index_t count, index_t n, Rows from, bf16* to, index_t stride);

}  // namespace attn::kernels
