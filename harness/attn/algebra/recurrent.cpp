#include "attn/algebra/recurrent.hpp"

#include "attn/algebra/elementwise.hpp"
#include "attn/algebra/layout.hpp"
#include "attn/algebra/matmul.hpp"

namespace attn {

template <class T>
Tensor<T> gru_step(const Tensor<T>& x, const Tensor<T>& h, const Tensor<T>& u, const Tensor<T>& c) {
  const index_t d = h.extent(-1);
  const std::vector<Tensor<T>> given = split_at(x, -1, {2 * d, d});
  const std::vector<Tensor<T>> own = split_at(matmul(h, u) + c, -1, {2 * d, d});
  const std::vector<Tensor<T>> rz = split_at(sigmoid(given[0] + own[0]), -1, {d, d});
  return (T{1} - rz[1]) * tanh(given[1] + rz[0] * own[1]) + rz[1] * h;
}

template Tensor<float> gru_step(const Tensor<float>&, const Tensor<float>&, const Tensor<float>&, const Tensor<float>&);
template Tensor<double> gru_step(const Tensor<double>&, const Tensor<double>&, const Tensor<double>&, const Tensor<double>&);

}  // namespace attn
