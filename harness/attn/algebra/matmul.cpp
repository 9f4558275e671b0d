#include "attn/algebra/matmul.hpp"

#include <Eigen/Core>

#include "attn/algebra/gradient.hpp"
#include "attn/algebra/layout.hpp"
#include "attn/algebra/node.hpp"
#include "attn/algebra/reduce.hpp"
#include "attn/algebra/strided.hpp"

namespace attn {

using detail::edge;
using detail::record;

namespace {

enum class Op : bool { plain, transposed };

// A matrix of a batch: rows and columns as stored.
struct Matrix {
  index_t rows, columns;
  Op op;
  index_t outer() const { return op == Op::plain ? rows : columns; }
  index_t inner() const { return op == Op::plain ? columns : rows; }
};

template <class T>
Matrix matrix_of(const Array<T>& x, Op op) {
  return {x.extent(-2), x.extent(-1), op};
}

Shape batch_of(const Shape& shape) {
  ATTN_ASSERT(shape.size() >= 2);
  return Shape(shape.begin(), shape.end() - 2);
}

// C = op(A) op(B), C [n,m] row-major.
template <class T>
void multiply_into(T* c, const T* a, const Matrix& shape_a, const T* b, const Matrix& shape_b) {
  using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Rows> left(a, shape_a.rows, shape_a.columns);
  const Eigen::Map<const Rows> right(b, shape_b.rows, shape_b.columns);
  Eigen::Map<Rows> out(c, shape_a.outer(), shape_b.op == Op::plain ? shape_b.columns : shape_b.rows);
  if (shape_a.op == Op::plain && shape_b.op == Op::plain) {
    out.noalias() = left * right;
  } else if (shape_a.op == Op::plain) {
    out.noalias() = left * right.transpose();
  } else if (shape_b.op == Op::plain) {
    out.noalias() = left.transpose() * right;
  } else {
    out.noalias() = left.transpose() * right.transpose();
  }
}

template <class T>
Array<T> product(const Array<T>& a, Op op_a, const Array<T>& b, Op op_b) {
  const Shape batch_a = batch_of(a.shape());
  const Shape batch_b = batch_of(b.shape());
  Shape shape = broadcast_shapes(batch_a, batch_b);
  const Shape batch = shape;
  Matrix left = matrix_of(a, op_a);
  const Matrix right = matrix_of(b, op_b);
  const index_t columns = op_b == Op::plain ? right.columns : right.rows;
  ATTN_ASSERT(left.inner() == right.outer());
  shape.push_back(left.outer());
  shape.push_back(columns);
  Array<T> c(std::move(shape));
  if (c.size() == 0) return c;

  // One weight for the whole batch: one tall product.
  if (volume(batch_b) == 1 && op_a == Op::plain && batch == batch_a) {
    left.rows *= volume(batch);
    multiply_into(c.writable(), a.data(), left, b.data(), right);
    return c;
  }
  const index_t size_a = left.rows * left.columns;
  const index_t size_b = right.rows * right.columns;
  T* out = c.writable();
  detail::for_each_run<2>(batch, {broadcast_strides(batch_a, batch), broadcast_strides(batch_b, batch)},
                          [&](const auto& offsets, const auto& steps, index_t count) {
                            for (index_t i = 0; i < count; ++i) {
                              multiply_into(out, a.data() + (offsets[0] + i * steps[0]) * size_a, left,
                                            b.data() + (offsets[1] + i * steps[1]) * size_b, right);
                              out += left.outer() * columns;
                            }
                          });
  return c;
}

}  // namespace

template <class T>
Tensor<T> matmul(const Tensor<T>& a, const Tensor<T>& b) {
  const Array<T> x = a.array();
  const Array<T> y = b.array();
  return record(
      product(x, Op::plain, y, Op::plain),
      {edge(a, [=](const Tensor<T>& g) { return sum_to(Tensor<T>(product(g.array(), Op::plain, y, Op::transposed)), x.shape()); }),
       edge(b,
            [=](const Tensor<T>& g) { return sum_to(Tensor<T>(product(x, Op::transposed, g.array(), Op::plain)), y.shape()); })});
}

template <class T>
Tensor<T> matmul_transposed(const Tensor<T>& a, const Tensor<T>& b) {
  const Array<T> x = a.array();
  const Array<T> y = b.array();
  return record(
      product(x, Op::plain, y, Op::transposed),
      {edge(a, [=](const Tensor<T>& g) { return sum_to(Tensor<T>(product(g.array(), Op::plain, y, Op::plain)), x.shape()); }),
       edge(b,
            [=](const Tensor<T>& g) { return sum_to(Tensor<T>(product(g.array(), Op::transposed, x, Op::plain)), y.shape()); })});
}

template Tensor<float> matmul(const Tensor<float>&, const Tensor<float>&);
template Tensor<double> matmul(const Tensor<double>&, const Tensor<double>&);
template Tensor<float> matmul_transposed(const Tensor<float>&, const Tensor<float>&);
template Tensor<double> matmul_transposed(const Tensor<double>&, const Tensor<double>&);

}  // namespace attn
