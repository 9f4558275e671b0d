// Rows of stored numbers, and the floats that they stand for.
#pragma once

#include <cstddef>

#include "attn/core/array.hpp"
#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

// Row i of a head of an array [B,H,N,D] of any number type begins at data + i * stride bytes.
struct StoredRows {
  const std::byte* data = nullptr;
  index_t stride = 0;

  const std::byte* row(index_t i) const { return data + i * stride; }
};

// Strides in bytes: those of q8 are whole blocks.
index_t stride_bytes(const Array&, std::size_t axis);
// Elements of the type, side by side in their rows; an empty array holds any.
inline bool holds_rows(const Array& array, DType dtype) {
  return array.empty() || (array.dtype() == dtype && array.stride(3) == 1);
}
StoredRows rows_of_head(const Array&, index_t batch, index_t head);

// to[i * stride + x] is element x of row i: count rows of n elements. Exact, the same bits on every instruction set; denormals are
// kept.
void widen(DType, const std::byte* const* rows, index_t count, index_t n, float* to, index_t stride);

// Rows first .. first + count - 1 of a head as floats: where they lie or, stored otherwise, as [count, D] in `to`.
Rows float_rows(const Array&, index_t batch, index_t head, index_t first, index_t count, float* to);

}  // namespace attn::kernels
