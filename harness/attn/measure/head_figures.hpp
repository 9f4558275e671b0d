// What a head looks at, in figures: a row of weights as shares |w| / sum |w| of its keys, so that negative ones count by their size.
#pragma once

#include <span>

#include "attn/core/problem.hpp"

namespace attn {

struct HeadFigures {
  double entropy = 0;                     // of a row's shares, bits: 2^entropy keys would share it evenly
  double distance = 0;                    // tokens from a query to what it looks at, of a row the mean by share
  index_t sink = 0;                       // the key that the rows together look at most
  double sink_share = 0;                  // of them; 1/kv_len where nobody is preferred
  double least_sum = 0, largest_sum = 0;  // of a row's weights
};

// Means over the rows that have any weight; of none all zero. weights [q_len, kv_len].
HeadFigures head_figures(const Problem& p, std::span<const float> weights);

}  // namespace attn
