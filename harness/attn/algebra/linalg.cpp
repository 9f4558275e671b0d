#include "attn/algebra/linalg.hpp"

#include <Eigen/LU>
#include <Eigen/QR>
#include <Eigen/SVD>

namespace attn {
namespace {

// In double whatever T: these run once per input or table, and each of Eigen's instantiations costs a minute to compile.
using Matrix = Eigen::MatrixXd;
using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
Matrix to_eigen(const Tensor<T>& a) {
  ATTN_ASSERT(a.rank() == 2);
  const Tensor<double> wide = cast<double>(a);
  return Eigen::Map<const Rows>(wide.data(), wide.extent(0), wide.extent(1));
}

template <class T>
Tensor<T> from_eigen(const Matrix& matrix) {
  Elements<double> out(Shape{matrix.rows(), matrix.cols()});
  Eigen::Map<Rows>(out.writable(), matrix.rows(), matrix.cols()) = matrix;
  return cast<T>(out);
}

}  // namespace

template <class T>
Tensor<T> qr_orthogonal_rows(const Tensor<T>& a) {
  ATTN_ASSERT(a.rank() == 2 && a.extent(0) <= a.extent(1));
  const index_t m = a.extent(0);
  const Eigen::HouseholderQR<Matrix> qr(to_eigen(a).transpose());
  Matrix q = qr.householderQ() * Matrix::Identity(a.extent(1), m);
  for (index_t j = 0; j < m; ++j) {
    if (qr.matrixQR()(j, j) < 0) q.col(j) = -q.col(j);
  }
  return from_eigen<T>(q.transpose());
}

template <class T>
Svd<T> svd(const Tensor<T>& a) {
  const Eigen::JacobiSVD<Matrix> factors(to_eigen(a), Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Matrix s = factors.singularValues();
  return {from_eigen<T>(factors.matrixU()), Tensor<T>(from_eigen<T>(s).array().reshaped({-1})), from_eigen<T>(factors.matrixV())};
}

template <class T>
Tensor<T> solve(const Tensor<T>& a, const Tensor<T>& b) {
  ATTN_ASSERT(a.rank() == 2 && a.extent(0) == a.extent(1) && b.extent(0) == a.extent(0));
  return from_eigen<T>(to_eigen(a).partialPivLu().solve(to_eigen(b)));
}

#define ATTN_INSTANTIATE(T)                                \
  template Tensor<T> qr_orthogonal_rows(const Tensor<T>&); \
  template Svd<T> svd(const Tensor<T>&);                   \
  template Tensor<T> solve(const Tensor<T>&, const Tensor<T>&);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
