#include "attn/algebra/functions.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "attn/algebra/elementwise.hpp"
#include "attn/algebra/gather.hpp"
#include "attn/algebra/layout.hpp"
#include "attn/algebra/matmul.hpp"
#include "attn/algebra/reduce.hpp"

namespace attn {

template <class T>
Tensor<T> layer_norm(const Tensor<T>& x, double eps) {
  return rms_norm(x - mean(x, -1, Keep::yes), eps);
}

template <class T>
Tensor<T> rms_norm(const Tensor<T>& x, double eps) {
  return x / sqrt(mean(square(x), -1, Keep::yes) + eps);
}

template <class T>
Tensor<T> l2_normalize(const Tensor<T>& x, double eps) {
  // The maximum is taken under the root: its slope at the zero vector is 0, where that of a root would be infinite.
  return x / sqrt(maximum(sum(square(x), -1, Keep::yes), eps * eps));
}

template <class T>
Tensor<T> depthwise_conv(const Tensor<T>& x, const Tensor<T>& weight, index_t left) {
  Tensor<T> y;
  for (index_t k = 0; k < weight.extent(-2); ++k) {
    const Tensor<T> term = slice(weight, -2, k, k + 1) * shift(x, -2, left - k);
    y = k == 0 ? term : y + term;
  }
  return y;
}

template <class T>
Tensor<T> windows(const Tensor<T>& x, index_t size, index_t stride, index_t left, index_t count) {
  const index_t rows = x.extent(-2);
  return take(x,
              Indices::from({count, size},
                            [&](index_t w, index_t k) {
                              const index_t row = w * stride - left + k;
                              return 0 <= row && row < rows ? row : -1;
                            }),
              -2);
}

template <class T>
Tensor<T> conv(const Tensor<T>& x, const Tensor<T>& weight, index_t left, index_t stride) {
  const index_t taps = weight.extent(0);
  const index_t count = (x.extent(-2) + stride - 1) / stride;
  return matmul(flatten(windows(x, taps, stride, left, count), -2, -1), flatten(weight, 0, 1));
}

template <class T>
Tensor<T> real_dft2(const Tensor<T>& x) {
  // Angles are reduced in integers first: i*j exceeds what a sine can resolve.
  const auto wave = [](index_t n, double (*function)(double)) {
    return tabulate<T>({n, n}, [=](index_t i, index_t j) {
      return function(2 * std::numbers::pi * static_cast<double>(i * j % n) / static_cast<double>(n));
    });
  };
  const auto transform = [&](double (*function)(double)) {
    return matmul(matmul(wave(x.extent(-2), function), x), wave(x.extent(-1), function));
  };
  return transform(std::cos) - transform(std::sin);
}

template <class T>
Tensor<T> cross_entropy(const Tensor<T>& logits, const Indices& targets) {
  const auto counted = std::count_if(targets.data(), targets.data() + targets.size(), [](index_t target) { return target >= 0; });
  ATTN_ASSERT(counted > 0);
  const Tensor<T> likelihood = take_along(log_softmax(logits), targets.reshaped(with_extent(logits.shape(), -1, 1)), -1);
  return -sum(likelihood) / counted;
}

template <class T>
Tensor<T> mse(const Tensor<T>& a, const Tensor<T>& b) {
  return mean(square(a - b));
}

template <class T>
Tensor<T> tril(const Tensor<T>& x, index_t diagonal) {
  return where(Mask::from({x.extent(-2), x.extent(-1)}, [=](index_t i, index_t j) { return j <= i + diagonal; }), x, 0);
}

#define ATTN_INSTANTIATE(T)                                                         \
  template Tensor<T> layer_norm(const Tensor<T>&, double);                          \
  template Tensor<T> rms_norm(const Tensor<T>&, double);                            \
  template Tensor<T> l2_normalize(const Tensor<T>&, double);                        \
  template Tensor<T> depthwise_conv(const Tensor<T>&, const Tensor<T>&, index_t);   \
  template Tensor<T> windows(const Tensor<T>&, index_t, index_t, index_t, index_t); \
  template Tensor<T> conv(const Tensor<T>&, const Tensor<T>&, index_t, index_t);    \
  template Tensor<T> real_dft2(const Tensor<T>&);                                   \
  template Tensor<T> cross_entropy(const Tensor<T>&, const Indices&);               \
  template Tensor<T> mse(const Tensor<T>&, const Tensor<T>&);                       \
  template Tensor<T> tril(const Tensor<T>&, index_t);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
