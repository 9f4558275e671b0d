// Who sends sums to whom, where what ranks have of neighbouring stretches of tokens is merged. The order of merges is that of the tokens,
// whoever makes them: every rank comes to the same bits, and operators need not commute.
#pragma once

#include <span>
#include <vector>

#include "attn/exec/arena.hpp"
#include "attn/ranks/scheme.hpp"

namespace attn {

// One exchange.
struct Hop {
  int to = -1, from = -1;                                                       // -1: nobody
  enum class Then { merge_before, merge_after, replace } then = Then::replace;  // with what came
  Range ranks = {};                                                             // that it comes of
};

// All ranks come to the sum of all, by doubling. Ranks beyond a power of two hand theirs to a neighbour and get the sum back.
std::vector<Hop> hops_to_all(int rank, int ranks);

// To the sum of all ranks before this one, as in MPI_Exscan: in hop d the sum of up to 2^d ranks goes 2^d ranks on.
std::vector<Hop> hops_to_earlier(int rank, int ranks);

// Goes through the hops: `mine` is sent, `theirs` comes, and merge(before) makes `mine` the sum of both; of Doing::messages no sum is made.
void sum_over(const std::vector<Hop>& hops, std::span<float> mine, std::span<float> theirs, Communicator& ranks, Doing doing,
              FunctionRef<void(bool before)> merge);

// Messages that a rank sends.
inline index_t sends(const std::vector<Hop>& hops) {
  index_t count = 0;
  for (const Hop& hop : hops) count += hop.to >= 0;
  return count;
}

}  // namespace attn
