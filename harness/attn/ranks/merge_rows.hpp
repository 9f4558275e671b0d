// Softmax attention of the same queries to two sets of keys, merged by log-sum-exp.
#pragma once

#include "attn/core/problem.hpp"

namespace attn {

// `rows` outputs of so many numbers, and behind them the logarithms of their sums of weights: -inf of a row that has seen no key. `mine`
// becomes that of both. `before`: theirs are the earlier keys; every rank that adds the same two comes to the same bits.
void merge_rows(index_t rows, index_t width, float* mine, const float* theirs, bool before);

// Of no keys.
void clear_rows(index_t rows, index_t width, float* mine);

}  // namespace attn
