#include "attn/algebra/linalg.hpp"

#include <Eigen/LU>
#include <Eigen/QR>
#include <Eigen/SVD>

namespace attn {
namespace {

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
Rows<T> to_eigen(const Tensor<T>& a) {
  ATTN_ASSERT(a.rank() == 2);
  return Eigen::Map<const Rows<T>>(a.data(), a.extent(0), a.extent(1));
}

template <class T, class M>
Tensor<T> from_eigen(const M& matrix) {
  Array<T> out(Shape{matrix.rows(), matrix.cols()});
  Eigen::Map<Rows<T>>(out.writable(), matrix.rows(), matrix.cols()) = matrix;
  return Tensor<T>(std::move(out));
}

// In double for every T: it takes half a minute to compile.
using Factors = Eigen::BDCSVD<Eigen::MatrixXd>;
Factors factorise(const Eigen::MatrixXd& a) { return {a, Eigen::ComputeThinU | Eigen::ComputeThinV}; }

}  // namespace

template <class T>
Tensor<T> qr_orthogonal_rows(const Tensor<T>& a) {
  ATTN_ASSERT(a.rank() == 2 && a.extent(0) <= a.extent(1));
  const index_t m = a.extent(0);
  const Eigen::HouseholderQR<Rows<T>> qr(to_eigen(a).transpose());
  Rows<T> q = qr.householderQ() * Rows<T>::Identity(a.extent(1), m);
  for (index_t j = 0; j < m; ++j) {
    if (qr.matrixQR()(j, j) < T{0}) q.col(j) = -q.col(j);
  }
  return from_eigen<T>(q.transpose());
}

template <class T>
Svd<T> svd(const Tensor<T>& a) {
  const Factors factors = factorise(to_eigen(a).template cast<double>());
  const Eigen::Matrix<T, Eigen::Dynamic, 1> s = factors.singularValues().template cast<T>();
  return {from_eigen<T>(factors.matrixU().template cast<T>()), Tensor<T>({s.size()}, std::vector<T>(s.data(), s.data() + s.size())),
          from_eigen<T>(factors.matrixV().template cast<T>())};
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
