// Columns and diagonals of the weights that the last queries of a sequence attend to most: keys that all queries see, and distances. As in
// grouping.hpp the same floats give the same table, with any number of threads; ties go to the one that comes first, and a sum that is no
// number loses to all others.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/workspace.hpp"

namespace attn::kernels {

// Of the weights of the `last` queries, summed by key and, over blocks of distances, by distance: the `vertical` largest keys, of which the
// `first` ones are always some, and the `slash` largest blocks of distances, of which the `local` nearest are. Distances from s block to
// (s + 1) block - 1 take a block of queries to two blocks of keys, s and s + 1 before its own, which it sees whole.
struct SlashRules {
  index_t block, last, vertical, slash, first, local;
};

// Of causal self-attention, forward.
class VerticalSlash {
 public:
  VerticalSlash(const Problem&, const SlashRules&, WorkspacePlan&);

  // q [B,H,N,D], k [B,Hk,N,D]. On the threads of the arena.
  void run(const View<const float, 4>& q, const View<const float, 4>& k, const Workspace&) const;

  // After a run, ascending: the blocks of keys that block u of a head's queries sees, and the keys outside these.
  std::span<const std::int32_t> blocks(const Workspace&, index_t batch, index_t head, index_t u) const;
  std::span<const std::int32_t> keys(const Workspace&, index_t batch, index_t head, index_t u) const;

 private:
  friend struct SlashTable;
  struct Scratch;

  Scratch scratch(const Workspace&, int worker) const;
  std::int32_t* list(const Workspace&, index_t head, index_t u) const;
  void choose(const float* q, index_t q_stride, const float* k, index_t k_stride, const Scratch&) const;
  void write_lists(const Workspace&, index_t head, const Scratch&) const;

  Problem p_;
  SlashRules rules_;
  index_t count_;  // blocks of a sequence
  index_t vertical_, slash_;
  Booking<float> floats_;
  Booking<std::int32_t> numbers_, lists_;
};

// For a definition, on the calling thread. q and k are dense.
struct SlashTable {
  SlashTable(const Problem&, const SlashRules&, const float* q, const float* k);

  // Of head b H + h, for j <= i.
  bool sees(index_t head, index_t i, index_t j) const {
    const auto at = [](index_t index) { return static_cast<std::size_t>(index); };
    const index_t distance = i / block - j / block;
    return column[at(head * keys + j)] || near[at(head * blocks + distance)] ||
           (distance > 0 && near[at(head * blocks + distance - 1)]);
  }

  index_t block, keys, blocks;
  std::vector<bool> column, near;  // [heads, keys], and [heads, blocks] by distance
};

}  // namespace attn::kernels
