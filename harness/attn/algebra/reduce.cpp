#include "attn/algebra/reduce.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "attn/algebra/elementwise.hpp"
#include "attn/algebra/gather.hpp"
#include "attn/algebra/gradient.hpp"
#include "attn/algebra/layout.hpp"
#include "attn/algebra/node.hpp"
#include "attn/algebra/strided.hpp"

namespace attn {

using detail::edge;
using detail::record;

namespace {

// Eight running sums, so that the compiler may use vectors without the order depending on the machine.
template <class T>
T ordered_sum(const T* x, index_t count, index_t step) {
  constexpr index_t lanes = 8;
  T partial[lanes] = {};
  index_t i = 0;
  if (step == 1) {
    for (; i + lanes <= count; i += lanes) {
      for (index_t lane = 0; lane < lanes; ++lane) partial[lane] += x[i + lane];
    }
  }
  for (; i < count; ++i) partial[i % lanes] += x[i * step];
  return ((partial[0] + partial[4]) + (partial[2] + partial[6])) + ((partial[1] + partial[5]) + (partial[3] + partial[7]));
}

template <class T>
Elements<T> sum_array_to(const Elements<T>& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  Elements<T> result(shape);
  std::fill_n(result.writable(), result.size(), T{0});
  detail::for_each_run<2>(x.shape(), {row_major_strides(x.shape()), broadcast_strides(shape, x.shape())},
                          [&](const auto& offsets, const auto& steps, index_t count) {
                            const T* in = x.data() + offsets[0];
                            T* out = result.writable() + offsets[1];
                            if (steps[1] == 0) {
                              *out += ordered_sum(in, count, steps[0]);
                            } else {
                              for (index_t i = 0; i < count; ++i) out[i * steps[1]] += in[i * steps[0]];
                            }
                          });
  return result;
}

// f(row) with the axis moved to the end and back.
template <class T, class F>
Tensor<T> along_last(const Tensor<T>& x, index_t axis, F f) {
  if (axis_of(axis, x.shape().size()) + 1 == x.shape().size()) return f(x);
  return swap_axes(f(swap_axes(x, axis, -1)), axis, -1);
}

template <class E>
index_t row_length(const Elements<E>& x) {
  return x.extent(-1);
}

template <class E>
index_t row_count(const Elements<E>& x) {
  return row_length(x) == 0 ? 0 : x.size() / row_length(x);
}

template <class T>
Tensor<T> drop(const Tensor<T>& x, index_t axis, Keep keep) {
  return keep == Keep::yes ? x : squeeze(x, axis);
}

// y = exp(x - max) / sum over the elements that allowed(row, i).
template <class T, class F>
Tensor<T> softmax_rows(const Tensor<T>& x, F allowed) {
  Elements<T> y(x.shape());
  const index_t n = row_length(y);
  for (index_t row = 0; row < row_count(y); ++row) {
    const T* in = x.data() + row * n;
    T* out = y.writable() + row * n;
    T top = -std::numeric_limits<T>::infinity();
    for (index_t i = 0; i < n; ++i) {
      if (allowed(row * n + i) && in[i] > top) top = in[i];
    }
    for (index_t i = 0; i < n; ++i)
      out[i] = allowed(row * n + i) && in[i] != -std::numeric_limits<T>::infinity() ? std::exp(in[i] - top) : T{0};
    const T total = ordered_sum(out, n, 1);
    if (total == T{0}) continue;
    const T factor = T{1} / total;
    for (index_t i = 0; i < n; ++i) out[i] *= factor;
  }
  return record(y, {edge(x, [y](const Tensor<T>& gradient) {
                  Elements<T> dx(y.shape());
                  const index_t length = row_length(y);
                  for (index_t row = 0; row < row_count(y); ++row) {
                    const T* g = gradient.data() + row * length;
                    const T* p = y.data() + row * length;
                    T* out = dx.writable() + row * length;
                    for (index_t i = 0; i < length; ++i) out[i] = p[i] * g[i];
                    const T mean_gradient = ordered_sum(out, length, 1);
                    for (index_t i = 0; i < length; ++i) out[i] -= p[i] * mean_gradient;
                  }
                  return Tensor<T>(std::move(dx));
                })});
}

template <class T>
Elements<T> scan(const Elements<T>& x, index_t axis, bool backwards) {
  Elements<T> y(x.shape());
  const std::size_t a = axis_of(axis, x.shape().size());
  const index_t inner = row_major_strides(x.shape())[a];
  const index_t n = x.shape()[a];
  if (x.size() == 0) return y;
  for (index_t block = 0; block < x.size(); block += n * inner) {
    for (index_t step = 0; step < n; ++step) {
      const index_t at = block + (backwards ? n - 1 - step : step) * inner;
      const index_t before = backwards ? at + inner : at - inner;
      for (index_t i = 0; i < inner; ++i) {
        y.writable()[at + i] = step == 0 ? x.data()[at + i] : y.data()[before + i] + x.data()[at + i];
      }
    }
  }
  return y;
}

// The first k entries of every row's permutation that sorts by `before`.
template <class E, class Before>
Indices sort_rows(const Elements<E>& x, index_t k, Before before) {
  const index_t n = row_length(x);
  ATTN_ASSERT(0 <= k && k <= n);
  Indices result(with_extent(x.shape(), -1, k));
  std::vector<index_t> order(static_cast<std::size_t>(n));
  for (index_t row = 0; row < row_count(x); ++row) {
    const E* values = x.data() + row * n;
    std::iota(order.begin(), order.end(), index_t{0});
    std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](index_t a, index_t b) {
      if (before(values[a], values[b])) return true;
      if (before(values[b], values[a])) return false;
      return a < b;
    });
    std::copy_n(order.begin(), k, result.writable() + row * k);
  }
  return result;
}

}  // namespace

template <class T>
Tensor<T> sum_to(const Tensor<T>& x, const Shape& shape) {
  return record(sum_array_to(x.array(), shape),
                {edge(x, [wide = x.shape()](const Tensor<T>& g) { return broadcast_to(g, wide); })});
}

template <class T>
Tensor<T> sum(const Tensor<T>& x) {
  return sum_to(x, {});
}

template <class T>
Tensor<T> mean(const Tensor<T>& x) {
  return sum(x) / x.size();
}

template <class T>
Tensor<T> sum(const Tensor<T>& x, index_t axis, Keep keep) {
  return drop(sum_to(x, with_extent(x.shape(), axis, 1)), axis, keep);
}

template <class T>
Tensor<T> mean(const Tensor<T>& x, index_t axis, Keep keep) {
  return sum(x, axis, keep) / x.extent(axis);
}

template <class T>
Tensor<T> max(const Tensor<T>& x, index_t axis, Keep keep) {
  const Indices best = argmax(x, axis);
  return drop(take_along(x, best.reshaped(with_axis(best.shape(), axis, 1)), axis), axis, keep);
}

template <class T>
Tensor<T> min(const Tensor<T>& x, index_t axis, Keep keep) {
  return -max(-x, axis, keep);
}

template <class T>
Tensor<T> cumsum(const Tensor<T>& x, index_t axis) {
  return record(scan(x.array(), axis, false),
                {edge(x, [axis](const Tensor<T>& g) { return Tensor<T>(scan(g.array(), axis, true)); })});
}

template <class T>
Tensor<T> logsumexp(const Tensor<T>& x, index_t axis, Keep keep) {
  // A row of -inf gives -inf and no gradient: -inf - -inf never happens.
  const auto finite = [](const Tensor<T>& y) { return maximum(y, std::numeric_limits<T>::lowest()); };
  const Tensor<T> in = detach(x);
  const Tensor<T> top = finite(max(in, axis, Keep::yes));
  const Tensor<T> y = log(sum(exp(in - top), axis, Keep::yes)) + top;
  return drop(record(y.array(), {edge(x, [=](const Tensor<T>& g) { return g * exp(in - finite(y)); })}), axis, keep);
}

template <class T>
Tensor<T> log_softmax(const Tensor<T>& x, index_t axis) {
  return x - logsumexp(x, axis, Keep::yes);
}

template <class T>
Tensor<T> softmax(const Tensor<T>& x, index_t axis) {
  return along_last(x, axis, [](const Tensor<T>& rows) { return softmax_rows(rows, [](index_t) { return true; }); });
}

template <class T>
Tensor<T> softmax(const Tensor<T>& x, const Mask& allowed) {
  const Mask wide = broadcast_to(allowed, x.shape());
  return softmax_rows(x, [bits = wide.data()](index_t i) { return bits[i]; });
}

template <class T>
Indices argmax(const Tensor<T>& x, index_t axis) {
  const std::size_t a = axis_of(axis, x.shape().size());
  const index_t inner = row_major_strides(x.shape())[a];
  const index_t n = x.shape()[a];
  ATTN_ASSERT(n > 0);
  Indices result(without_axis(x.shape(), axis));
  for (index_t r = 0; r < result.size(); ++r) {
    const T* values = x.data() + r / inner * inner * n + r % inner;
    index_t best = 0;
    for (index_t i = 1; i < n; ++i) {
      if (values[i * inner] > values[best * inner]) best = i;
    }
    result.writable()[r] = best;
  }
  return result;
}

template <class T>
Indices argsort(const Tensor<T>& x) {
  return sort_rows(x.array(), x.extent(-1), std::less<T>());
}

template <class T>
Indices top_k(const Tensor<T>& x, index_t k) {
  return sort_rows(x.array(), k, std::greater<T>());
}

Indices argsort(const Indices& x) { return sort_rows(x, x.extent(-1), std::less<>()); }

Indices sort(const Indices& x) {
  Indices result(x.shape(), x.values());
  const index_t n = row_length(x);
  for (index_t row = 0; row < row_count(x); ++row) std::sort(result.writable() + row * n, result.writable() + (row + 1) * n);
  return result;
}

#define ATTN_INSTANTIATE(T)                                      \
  template Tensor<T> sum_to(const Tensor<T>&, const Shape&);     \
  template Tensor<T> sum(const Tensor<T>&);                      \
  template Tensor<T> mean(const Tensor<T>&);                     \
  template Tensor<T> sum(const Tensor<T>&, index_t, Keep);       \
  template Tensor<T> mean(const Tensor<T>&, index_t, Keep);      \
  template Tensor<T> max(const Tensor<T>&, index_t, Keep);       \
  template Tensor<T> min(const Tensor<T>&, index_t, Keep);       \
  template Tensor<T> cumsum(const Tensor<T>&, index_t);          \
  template Tensor<T> logsumexp(const Tensor<T>&, index_t, Keep); \
  template Tensor<T> log_softmax(const Tensor<T>&, index_t);     \
  template Tensor<T> softmax(const Tensor<T>&, index_t);         \
  template Tensor<T> softmax(const Tensor<T>&, const Mask&);     \
  template Indices argmax(const Tensor<T>&, index_t);            \
  template Indices argsort(const Tensor<T>&);                    \
  template Indices top_k(const Tensor<T>&, index_t);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
