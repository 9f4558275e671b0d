// A few query rows meeting keys with the lanes along head_dim, one copy for each instruction set. Private to few_rows.cpp.
//
// Rows are taken in groups of 4, 2 or 1 (3 rows as 4). A group's scores of a few keys are a tile of sums, each over the lanes of a
// vector, which a tree of shuffles adds up; weights stay in that order, rows beside keys, so that one vector holds several rows'.
// The reference m of a row moves only when a score exceeds it by 8: there is no running maximum.
#pragma once

#include <cstdint>

#include "attn/kernels/rows/group_kernel.hpp"

namespace attn::kernels {

struct FewRowsOps {
  // queries[row][columns], scaled, zeros past head_dim and in rows past the last, of which there are `count`; so below.
  void (*load)(const GroupShape&, const std::byte* const* rows, index_t count, double scale, float* queries);
  // seen[r]: bit j is key j of the block; null where every row sees every key. bias[r * few_rows_block + j] is added to a score; null: none.
  using Attend = void (*)(const GroupShape&, const float* queries, const KeyBlocks& keys, const std::uint64_t* seen,
                          const float* bias, float* state, float* weights);
  Attend (*attend)(const GroupShape&);
  // Of the rows' potential; rows past the last have zeros.
  void (*bias)(const GroupShape&, const KeyBlock&, const GroupRows&, float* to);
  void (*merge)(const GroupShape&, float* into, const float* from);
  void (*store)(const GroupShape&, const float* state, float* const* out, float* const* lse, index_t count);
};

const FewRowsOps& few_rows_ops();

inline constexpr index_t few_rows_block = 64;  // keys, at most: one bit each in `seen`

// Rows with those that fill the last group, and columns with those that fill the last vector.
constexpr index_t padded_rows(index_t rows) { return rows % 4 == 3 ? rows + 1 : rows; }
constexpr index_t padded_columns(index_t columns) { return (columns + 15) / 16 * 16; }
constexpr index_t group_rows(index_t rows_left) { return rows_left >= 3 ? 4 : rows_left; }

// Of a row of queries, and of sums of values: of latents that which meets, or comes from, k and then that of v.
constexpr index_t query_columns(const GroupShape& shape) {
  return padded_columns(shape.head_dim) + (shape.latent > 0 ? padded_columns(shape.value_dim) : 0);
}
constexpr index_t value_columns(const GroupShape& shape) { return padded_columns(shape.latent) + padded_columns(shape.value_dim); }

// The arrays of a state. Group g has 16 sums and 16 references, in the order of the lanes of its weights.
struct FewRowsState {
  static constexpr index_t head = 16;

  FewRowsState(const GroupShape& shape, float* state)
      : met(reinterpret_cast<std::uint64_t*>(state)),
        o(state + head),
        o_stride(value_columns(shape)),
        sum(o + padded_rows(shape.rows) * o_stride),
        top(sum + groups(shape) * 16) {}

  static index_t groups(const GroupShape& shape) { return (shape.rows + 3) / 4; }
  static index_t floats(const GroupShape& shape) {
    return head + padded_rows(shape.rows) * value_columns(shape) + groups(shape) * 32;
  }

  std::uint64_t* met;  // bit r: row r has seen a key
  float* o;            // [padded rows][o_stride]
  index_t o_stride;
  float* sum;
  float* top;
};

}  // namespace attn::kernels
