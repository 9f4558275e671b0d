// Which vectors of a tile see which keys of a batch. Private to the tile kernels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "attn/kernels/softmax/tile.hpp"

namespace attn::kernels {

// Vectors first..end-1 of the tile see keys of a step; a window's edge leaves whole vectors out.
struct VectorRange {
  int first, end;
};

template <int W, index_t kLanes>
VectorRange seeing_vectors(const std::uint64_t* lanes) {
  std::uint64_t seen = 0;
  for (index_t i = 0; i < key_step; ++i) seen |= lanes[i];
  constexpr std::uint64_t vector = (std::uint64_t{1} << kLanes) - 1;
  int first = 0, end = W;
  while (first < W && (seen >> (first * kLanes) & vector) == 0) ++first;
  while (end > first && (seen >> ((end - 1) * kLanes) & vector) == 0) --end;
  return {first, end};
}

// Lanes that see a key of the batch.
inline std::uint64_t seeing_lanes(const KeyBatch& batch) {
  std::uint64_t seen = 0;
  for (index_t step = 0; step * key_step < batch.count; ++step) {
    if ((batch.cut >> step & 1) == 0) return ~std::uint64_t{0};
    for (index_t j = step * key_step; j < (step + 1) * key_step; ++j) seen |= batch.lanes[j];
  }
  return seen;
}

// Keys at the ends of a batch, in stairs: of the first ones, before[w-1] are seen by the first w vectors only; of the last ones,
// after[w-1] by the last w only, the widest stair first.
template <int W>
struct Edges {
  index_t before[3] = {}, after[3] = {};
  index_t middle = 0;
};

template <int W, index_t kLanes>
Edges<W> find_edges(const KeyBatch& batch) {
  Edges<W> edges;
  edges.middle = batch.count;
  if (W == 1 || batch.cut == 0) return edges;
  index_t step = 0, end = batch.count / key_step;
  for (int stair = 1; step < end && (batch.cut >> step & 1) != 0; ++step) {
    const VectorRange range = seeing_vectors<W, kLanes>(batch.lanes + step * key_step);
    stair = std::max(stair, range.end);
    if (stair == W) break;
    edges.before[stair - 1] += key_step;
  }
  for (int stair = 1; end > step && (batch.cut >> (end - 1) & 1) != 0; --end) {
    const VectorRange range = seeing_vectors<W, kLanes>(batch.lanes + (end - 1) * key_step);
    stair = std::max(stair, W - range.first);
    if (stair == W) break;
    edges.after[stair - 1] += key_step;
  }
  edges.middle = (end - step) * key_step;
  return edges;
}

}  // namespace attn::kernels
