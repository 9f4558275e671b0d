// How a group of query rows meets blocks of keys: few rows with the lanes along head_dim, more with the rows in the lanes. Private
// to the engine.
//
// A state holds what rows found among some keys: for each row m, sum of exp(s - m) and sum of exp(s - m) v. States of different
// keys merge. Memory is the caller's, 64-byte aligned; sizes are multiples of 16 floats.
#pragma once

#include <cstdint>
#include <memory>

#include "attn/kernels/rows/key_walk.hpp"

namespace attn::kernels {

struct GroupShape {
  index_t rows, head_dim, value_dim;  // rows: at most
  DType kv_dtype = DType::f32;        // of the keys and values
  // > 0: of latents (RowsOptions::latent). Few rows of f32 alone.
  index_t latent = 0;
  double softcap = 0;  // > 0: scores are softcap tanh(scale q.k / softcap); few rows alone, which alone take a potential too

  index_t query_dim() const { return head_dim + (latent > 0 ? value_dim : 0); }
  index_t out_dim() const { return latent + value_dim; }
};

class GroupKernel {
 public:
  virtual ~GroupKernel() = default;

  index_t block_keys() const { return block_keys_; }  // of an `attend`, at most
  index_t query_floats() const { return query_floats_; }
  index_t state_floats() const { return state_floats_; }
  index_t scratch_floats() const { return scratch_floats_; }

  // `count` <= rows query rows of query_dim floats, to meet keys with weights exp(scale q.k).
  virtual void load(const std::byte* const* rows, index_t count, double scale, float* queries) const = 0;
  // No key yet.
  virtual void clear(index_t count, float* state) const = 0;
  // The keys of `now`; some of those that follow are fetched meanwhile.
  virtual void attend(const float* queries, const GroupRows& rows, const KeyBlocks& keys, float* state, float* scratch) const = 0;
  // Adds what the same rows found among other keys.
  virtual void merge(float* into, const float* from) const = 0;
  // Zeros for a row that saw no key, and unless null lse[i] = ln sum exp(logit), -inf for none.
  virtual void store(const float* state, float* const* out, float* const* lse, index_t count) const = 0;

 protected:
  GroupKernel() = default;
  GroupKernel(const GroupKernel&) = default;
  GroupKernel& operator=(const GroupKernel&) = default;

  index_t block_keys_ = 0, query_floats_ = 0, state_floats_ = 0, scratch_floats_ = 0;
};

// Lanes along head_dim (few_rows.cpp): no row is padded, and every row costs the same.
std::unique_ptr<const GroupKernel> few_rows(const GroupShape& shape);
// Rows in the lanes (lane_rows.cpp): the tile of the softmax engine, which costs as much for one row as for a vector of them.
std::unique_ptr<const GroupKernel> lane_rows(const GroupShape& shape);
index_t most_lane_rows();

}  // namespace attn::kernels
