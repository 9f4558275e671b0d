// From a sequence of token vectors to Q, K and V, as the first layer of a transformer does it:
//   x = embedding + position,  y = LayerNorm(x),  q_h = y Wq_h,  k_h = y Wk_h,  v_h = y Wv_h
// (Vaswani et al. 2017, arXiv:1706.03762, sections 3.2.2 and 3.5). Width = heads * head_dim; positions are sinusoids,
// sine and cosine interleaved; LayerNorm without gain and bias, epsilon 1e-5; each head's weights are Xavier-uniform over
// its own fan-in `width` and fan-out `head_dim`. Weights depend on the seed alone, not on the sequence.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/core/rng.hpp"
#include "attn/exec/arena.hpp"
#include "attn/inputs/tensors.hpp"

namespace attn {

// A matrix [depth, columns] in panels of 32 columns, [panel][depth][32], padded with zeros: the layout the product reads
// in order.
class PackedMatrix {
 public:
  static constexpr index_t panel = 32;

  PackedMatrix(index_t depth, index_t columns);
  index_t depth() const { return depth_; }
  index_t columns() const { return columns_; }

  // Columns first, first+1, ... become those of the row-major `values` [depth, width].
  void put(index_t first, std::span<const float> values, index_t width);

  // out[i, :] = in[i, :] * this; in [rows, depth] and out [rows, columns] row-major. Sums run over depth in order, so that
  // the bits do not depend on the vector width, but on fused multiply-add: on x86 the scalar instruction set has none.
  // Columns before that of the panel which `from` is in are not written.
  void multiply(const float* in, index_t rows, float* out, index_t from = 0) const;

 private:
  index_t depth_, columns_;
  std::vector<float> values_;
};

// Seeded Xavier-uniform weights [depth, columns], packed.
PackedMatrix xavier(index_t depth, index_t columns, const Rng& rng);

// Writes the embeddings of tokens first .. first+count-1 of one batch item to x [count, width]. Called from many threads.
using Embed = FunctionRef<void(index_t batch, index_t first, index_t count, float* x)>;

inline index_t model_width(const Problem& p) { return p.heads * p.head_dim; }

// Tokens that one batch item reads; keys are its last kv_len tokens and queries its last q_len.
inline index_t sequence_length(const Problem& p) { return std::max(p.q_len, p.kv_len); }

// Fills Q, K and V in the caller's arena; the same bits for any number of threads.
void project(const Problem& p, std::uint64_t seed, Embed embed, const Tensors& tensors);

}  // namespace attn
