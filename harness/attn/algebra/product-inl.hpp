// The product by Eigen, for the instruction set that the including file is compiled for (harness/CMakeLists.txt).
// Eigen is renamed in each: otherwise the linker would keep one of its versions for all, perhaps one that this machine
// cannot run. Includes nothing else, for the same reason.
#define Eigen ATTN_JOIN(Eigen_, ATTN_INSTRUCTIONS)
#define ATTN_JOIN(a, b) ATTN_JOIN_EXPANDED(a, b)
#define ATTN_JOIN_EXPANDED(a, b) a##b

#include <Eigen/Core>

#include "attn/algebra/product.hpp"

namespace attn::detail::ATTN_INSTRUCTIONS {
namespace {

template <class T>
void multiply(T* c, const T* a, const Factor& shape_a, const T* b, const Factor& shape_b) {
  using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Rows> left(a, shape_a.rows, shape_a.columns);
  const Eigen::Map<const Rows> right(b, shape_b.rows, shape_b.columns);
  Eigen::Map<Rows> out(c, shape_a.outer(), shape_b.inner());
  if (shape_a.transposed && shape_b.transposed) {
    out.noalias() = left.transpose() * right.transpose();
  } else if (shape_a.transposed) {
    out.noalias() = left.transpose() * right;
  } else if (shape_b.transposed) {
    out.noalias() = left * right.transpose();
  } else {
    out.noalias() = left * right;
  }
}

}  // namespace

// NOLINTBEGIN(misc-definitions-in-headers): one source file of each instruction set includes this, into its own namespace
void product(float* c, const float* a, const Factor& shape_a, const float* b, const Factor& shape_b) {
  multiply(c, a, shape_a, b, shape_b);
}

void product(double* c, const double* a, const Factor& shape_a, const double* b, const Factor& shape_b) {
  multiply(c, a, shape_a, b, shape_b);
}
// NOLINTEND(misc-definitions-in-headers)

}  // namespace attn::detail::ATTN_INSTRUCTIONS
