// One matrix product for raw pointers, compiled for several instruction sets. Internal to this floor.
#pragma once

#include <cstdint>

namespace attn::detail {

// A row-major matrix as stored, and whether it enters the product transposed.
struct Factor {
  std::int64_t rows, columns;
  bool transposed;

  std::int64_t outer() const { return transposed ? columns : rows; }  // as a left factor
  std::int64_t inner() const { return transposed ? rows : columns; }
};

// c = op(a) op(b), c row-major.
template <class T>
using Product = void(T* c, const T* a, const Factor& shape_a, const T* b, const Factor& shape_b);

namespace baseline {
Product<float> product;
Product<double> product;
}  // namespace baseline
namespace avx2 {
Product<float> product;
Product<double> product;
}  // namespace avx2

}  // namespace attn::detail
