#include "attn/ranks/hops.hpp"

#include <algorithm>

namespace attn {

std::vector<Hop> hops_to_all(int rank, int ranks) {
  std::vector<Hop> hops;
  int whole = 1;
  while (2 * whole <= ranks) whole *= 2;
  const int pairs = ranks - whole;  // of the first ranks, whose second one speaks for both
  const bool paired = rank < 2 * pairs;
  const auto first_of = [&](int group) { return group < pairs ? 2 * group : group + pairs; };
  const auto speaker = [&](int group) { return group < pairs ? 2 * group + 1 : group + pairs; };
  if (paired && rank % 2 == 0) return {{.to = rank + 1}, {.from = rank + 1, .ranks = {0, ranks}}};
  if (paired) hops.push_back({.from = rank - 1, .then = Hop::Then::merge_before, .ranks = {rank - 1, rank}});
  const int group = paired ? rank / 2 : rank - pairs;
  for (int d = 1; d < whole; d *= 2) {
    const int other = group ^ d, block = other / d * d;
    hops.push_back({.to = speaker(other),
                    .from = speaker(other),
                    .then = other < group ? Hop::Then::merge_before : Hop::Then::merge_after,
                    .ranks = {first_of(block), block + d < whole ? first_of(block + d) : ranks}});
  }
  if (paired) hops.push_back({.to = rank - 1});
  return hops;
}

std::vector<Hop> hops_to_earlier(int rank, int ranks) {
  std::vector<Hop> hops;
  for (int d = 1; d < ranks; d *= 2) {
    Hop hop{.then = Hop::Then::merge_before};
    if (rank + d < ranks) hop.to = rank + d;
    if (rank - d >= 0) hop.from = rank - d, hop.ranks = {std::max(0, rank - 2 * d + 1), rank - d + 1};
    if (hop.to >= 0 || hop.from >= 0) hops.push_back(hop);
  }
  return hops;
}

void sum_over(const std::vector<Hop>& hops, std::span<float> mine, std::span<float> theirs, Communicator& ranks, Doing doing,
              FunctionRef<void(bool before)> merge) {
  for (const Hop& hop : hops) {
    if (hop.from >= 0) ranks.start_receive(hop.from, bytes_in(theirs));
    if (hop.to >= 0) ranks.start_send(hop.to, bytes_in(mine));
    ranks.wait();
    if (hop.from < 0 || doing == Doing::messages) continue;
    if (hop.then == Hop::Then::replace)
      std::ranges::copy(theirs, mine.begin());
    else
      merge(hop.then == Hop::Then::merge_before);
  }
}

}  // namespace attn
