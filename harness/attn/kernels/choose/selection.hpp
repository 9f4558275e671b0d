// The loops of what chooses by scores. Private to this room.
#pragma once

#include <cstdint>

#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// at[i] = the c with the largest of y[c][i] and, from `columns` on, -y[c - columns][i]; the first of several, 0 for NaN.
// y [columns, n]; n a multiple of 16.
void argmax_of_both_signs(index_t n, index_t columns, const float* y, std::int32_t* at);

// score[j], -inf for NaN, and first + j to both lists, which have room for n + 16.
void append_all(index_t n, const float* score, std::int32_t first, float* scores, std::int32_t* rows);

// Appends score[j] > least and first + j to both lists, which have room for n + 16 more; how many there are then. A score of NaN
// exceeds nothing.
index_t append_above(index_t n, const float* score, float least, std::int32_t first, float* scores, std::int32_t* rows,
                     index_t size);

// Of n scores, no NaN, keeps the `take` <= n largest, the first of equals, and their rows, in the order they stand in; or some
// more of the largest, up to `most`, which is found sooner. How many, and the least of them. scratch: n + 64. Lists have room for
// 16 more.
struct Kept {
  index_t count;
  float least;
};
Kept keep_largest(index_t n, index_t take, index_t most, float* scores, std::int32_t* rows, std::int32_t* scratch);

// Of `count` scores, NaN left out, the numbers of the `take` largest, the first of equals, ascending, then -1. For few of them; best: room for
// `take`.
void take_largest(const float* score, index_t count, index_t take, float* best, std::int32_t* to);

}  // namespace attn::kernels
