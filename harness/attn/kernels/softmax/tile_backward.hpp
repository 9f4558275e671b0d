// The gradient of softmax attention for one tile of queries and a batch of keys: what tile.hpp is to the forward pass.
//
// With weights P = exp(s - lse), kept by no one and made again here, and delta_i = dO_i.O_i,
//   dS = P (dO V^T - delta),  dQ = scale dS K,  dK = scale dS^T Q,  dV = P^T dO        (Dao et al. 2022, arXiv:2205.14135, app.
//   B.4)
// A tile makes P and scale dS in registers, queries in the lanes, and adds up its dQ. Both go to memory as one row for each key,
// so that the products for dK and dV run over the queries of many tiles at once (gemm.hpp).
#pragma once

#include "attn/kernels/softmax/tile.hpp"

namespace attn::kernels {

// The arrays are the caller's, 64-byte aligned.
struct BackwardTile {
  float* qt;           // [head_dim][lanes]   queries times factor, transposed
  float* dot;          // [value_dim][lanes]  gradient of the output times scale, transposed
  float* dqt;          // [head_dim][lanes]   sum of scale dS k
  float* minus_lse;    // [lanes]             in log2 units
  float* minus_delta;  // [lanes]             times scale
  bool fresh;          // no batch was attended yet: dqt is not written
};

// Rows of a tile's queries.
struct BackwardRows {
  const float* const* q;
  const float* const* out;
  const float* const* d_out;
  const float* const* lse;  // ln sum exp(logit); an infinite one says that the query has no weights
  index_t count;            // <= lanes
};

struct BackwardTileOps {
  index_t lanes;
  // factor: scale in log2 units.
  void (*load)(BackwardTile& tile, const TileShape&, const BackwardRows& rows, float factor, float scale);
  // Writes P to weights[j * stride + lane] and scale dS to d_scores likewise, zeros for what a lane does not see; stride is a
  // multiple of the vector's lanes. Of the batch, `guard` and `fetch` are not used.
  void (*attend)(BackwardTile& tile, const TileShape&, const KeyBatch& batch, float* weights, float* d_scores, index_t stride);
  // rows[i] = dqt, or that added.
  void (*store)(const BackwardTile& tile, const TileShape&, float* const* rows, index_t count, bool add);
};

// Tiles of 1, 2 or 3 vectors of the active instruction set, with as many lanes as those of tile_ops().
const BackwardTileOps& backward_tile_ops(int vectors);

}  // namespace attn::kernels
