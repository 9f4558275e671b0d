// How products of floats read their operands.
#pragma once

#include "attn/core/dtype.hpp"

namespace attn {

// While one lives, matmul of floats on this thread rounds both factors to this type first, as a fast path does that multiplies such numbers
// and adds in f32: a definition in float under it is the yardstick of that path's rounding. Doubles are never rounded.
class RoundedProducts {
 public:
  explicit RoundedProducts(DType operands);
  ~RoundedProducts();
  RoundedProducts(const RoundedProducts&) = delete;
  RoundedProducts& operator=(const RoundedProducts&) = delete;

  static DType operands();  // in force; f32: as they are

 private:
  DType before_;
};

// For products that make choices, such as which keys are the nearest: a choice is made from the numbers as they are, whatever rounds else.
class ExactProducts : public RoundedProducts {
 public:
  ExactProducts() : RoundedProducts(DType::f32) {}
};

}  // namespace attn
