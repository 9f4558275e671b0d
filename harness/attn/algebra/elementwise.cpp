#include "attn/algebra/elementwise.hpp"

#include <cmath>
#include <numbers>

#include "attn/algebra/gradient.hpp"
#include "attn/algebra/node.hpp"
#include "attn/algebra/reduce.hpp"
#include "attn/algebra/strided.hpp"

namespace attn {

using detail::edge;
using detail::map;
using detail::record;

namespace {

// y = value(x), dy/dx = slope(x, y).
template <class T, class Value, class Slope>
Tensor<T> unary(const Tensor<T>& x, Value value, Slope slope) {
  const Elements<T> y = map<T>(value, x.array());
  return record(y, {edge(x, [in = x.array(), y, slope](const Tensor<T>& gradient) {
                  return Tensor<T>(map<T>([slope](T g, T at, T out) { return g * slope(at, out); }, gradient.array(), in, y));
                })});
}

// Each side's share of the gradient of a op b: d(g, a, b).
template <class T, class Value, class SlopeA, class SlopeB>
Tensor<T> binary(const Tensor<T>& a, const Tensor<T>& b, Value value, SlopeA slope_a, SlopeB slope_b) {
  const auto share = [x = a.array(), y = b.array()](auto slope, const Shape& shape) {
    return [x, y, slope, shape](const Tensor<T>& g) { return sum_to(Tensor<T>(map<T>(slope, g.array(), x, y)), shape); };
  };
  return record(map<T>(value, a.array(), b.array()), {edge(a, share(slope_a, a.shape())), edge(b, share(slope_b, b.shape()))});
}

template <class T>
T logistic(T x) {
  return T{1} / (T{1} + std::exp(-x));
}

template <class T>
T normal_cdf(T x) {
  return T{0.5} * std::erfc(-x / std::numbers::sqrt2_v<T>);
}

template <class T>
T normal_density(T x) {
  return std::exp(T{-0.5} * x * x) * std::numbers::inv_sqrtpi_v<T> / std::numbers::sqrt2_v<T>;
}

}  // namespace

template <class T>
Tensor<T> add(const Tensor<T>& a, const Tensor<T>& b) {
  const auto share = [](const Tensor<T>& to) {
    return edge(to, [shape = to.shape()](const Tensor<T>& g) { return sum_to(g, shape); });
  };
  return record(map<T>([](T x, T y) { return x + y; }, a.array(), b.array()), {share(a), share(b)});
}

template <class T>
Tensor<T> subtract(const Tensor<T>& a, const Tensor<T>& b) {
  return record(map<T>([](T x, T y) { return x - y; }, a.array(), b.array()),
                {edge(a, [shape = a.shape()](const Tensor<T>& g) { return sum_to(g, shape); }),
                 edge(b, [shape = b.shape()](const Tensor<T>& g) { return -sum_to(g, shape); })});
}

template <class T>
Tensor<T> multiply(const Tensor<T>& a, const Tensor<T>& b) {
  return binary(
      a, b, [](T x, T y) { return x * y; }, [](T g, T, T y) { return g * y; }, [](T g, T x, T) { return g * x; });
}

template <class T>
Tensor<T> divide(const Tensor<T>& a, const Tensor<T>& b) {
  return binary(
      a, b, [](T x, T y) { return x / y; }, [](T g, T, T y) { return g / y; }, [](T g, T x, T y) { return -g * x / (y * y); });
}

template <class T>
Tensor<T> maximum(const Tensor<T>& a, const Operand<T>& b) {
  return binary(
      a, b, [](T x, T y) { return x >= y ? x : y; }, [](T g, T x, T y) { return x >= y ? g : T{0}; },
      [](T g, T x, T y) { return x >= y ? T{0} : g; });
}

template <class T>
Tensor<T> minimum(const Tensor<T>& a, const Operand<T>& b) {
  return binary(
      a, b, [](T x, T y) { return x <= y ? x : y; }, [](T g, T x, T y) { return x <= y ? g : T{0}; },
      [](T g, T x, T y) { return x <= y ? T{0} : g; });
}

template <class T>
Tensor<T> where(const Mask& condition, const Tensor<T>& yes, const Operand<T>& no) {
  const auto share = [&](const Tensor<T>& to, bool side) {
    return edge(to, [condition, side, shape = to.shape()](const Tensor<T>& gradient) {
      return sum_to(Tensor<T>(map<T>([side](bool c, T g) { return c == side ? g : T{0}; }, condition, gradient.array())), shape);
    });
  };
  return record(map<T>([](bool c, T x, T y) { return c ? x : y; }, condition, yes.array(), no.array()),
                {share(yes, true), share(no, false)});
}

template <class T>
Tensor<T> masked_fill(const Tensor<T>& x, const Mask& filled, double value) {
  return where(filled, Tensor<T>(value), x);
}

template <class T>
Tensor<T> negate(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return -v; }, [](T, T) { return T{-1}; });
}

template <class T>
Tensor<T> exp(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return std::exp(v); }, [](T, T y) { return y; });
}

template <class T>
Tensor<T> exp2(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return std::exp2(v); }, [](T, T y) { return y * std::numbers::ln2_v<T>; });
}

template <class T>
Tensor<T> log(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return std::log(v); }, [](T v, T) { return T{1} / v; });
}

template <class T>
Tensor<T> sqrt(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return std::sqrt(v); }, [](T, T y) { return T{0.5} / y; });
}

template <class T>
Tensor<T> square(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return v * v; }, [](T v, T) { return T{2} * v; });
}

template <class T>
Tensor<T> reciprocal(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return T{1} / v; }, [](T, T y) { return -y * y; });
}

template <class T>
Tensor<T> pow(const Tensor<T>& x, double exponent) {
  const T e = static_cast<T>(exponent);
  return unary(
      x, [e](T v) { return std::pow(v, e); }, [e](T v, T) { return e * std::pow(v, e - T{1}); });
}

template <class T>
Tensor<T> abs(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return std::abs(v); }, [](T v, T) { return static_cast<T>((v > 0) - (v < 0)); });
}

template <class T>
Tensor<T> sin(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return std::sin(v); }, [](T v, T) { return std::cos(v); });
}

template <class T>
Tensor<T> cos(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return std::cos(v); }, [](T v, T) { return -std::sin(v); });
}

template <class T>
Tensor<T> tanh(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return std::tanh(v); }, [](T, T y) { return T{1} - y * y; });
}

template <class T>
Tensor<T> sigmoid(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return logistic(v); }, [](T, T y) { return y * (T{1} - y); });
}

template <class T>
Tensor<T> softplus(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return (v > 0 ? v : T{0}) + std::log1p(std::exp(-std::abs(v))); }, [](T v, T) { return logistic(v); });
}

template <class T>
Tensor<T> relu(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return v < 0 ? T{0} : v; }, [](T v, T) { return v > 0 ? T{1} : T{0}; });
}

template <class T>
Tensor<T> elu(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return v > 0 ? v : std::expm1(v); }, [](T v, T) { return v > 0 ? T{1} : std::exp(v); });
}

template <class T>
Tensor<T> gelu(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return v * normal_cdf(v); }, [](T v, T) { return normal_cdf(v) + v * normal_density(v); });
}

template <class T>
Tensor<T> silu(const Tensor<T>& x) {
  return unary(
      x, [](T v) { return v * logistic(v); }, [](T v, T y) { return y + logistic(v) * (T{1} - y); });
}

template <class T>
Mask less(const Tensor<T>& a, const Tensor<T>& b) {
  return map<bool>([](T x, T y) { return x < y; }, a.array(), b.array());
}

template <class T>
Mask less_equal(const Tensor<T>& a, const Tensor<T>& b) {
  return map<bool>([](T x, T y) { return x <= y; }, a.array(), b.array());
}

Mask operator&(const Mask& a, const Mask& b) {
  return map<bool>([](bool x, bool y) { return x && y; }, a, b);
}

Mask operator|(const Mask& a, const Mask& b) {
  return map<bool>([](bool x, bool y) { return x || y; }, a, b);
}

Mask operator!(const Mask& a) {
  return map<bool>([](bool x) { return !x; }, a);
}

Mask equal(const Indices& a, const Indices& b) {
  return map<bool>([](index_t x, index_t y) { return x == y; }, a, b);
}

Mask less(const Indices& a, const Indices& b) {
  return map<bool>([](index_t x, index_t y) { return x < y; }, a, b);
}

Mask less_equal(const Indices& a, const Indices& b) {
  return map<bool>([](index_t x, index_t y) { return x <= y; }, a, b);
}

#define ATTN_INSTANTIATE(T)                                                   \
  template Tensor<T> add(const Tensor<T>&, const Tensor<T>&);                 \
  template Tensor<T> subtract(const Tensor<T>&, const Tensor<T>&);            \
  template Tensor<T> multiply(const Tensor<T>&, const Tensor<T>&);            \
  template Tensor<T> divide(const Tensor<T>&, const Tensor<T>&);              \
  template Tensor<T> maximum(const Tensor<T>&, const Operand<T>&);            \
  template Tensor<T> minimum(const Tensor<T>&, const Operand<T>&);            \
  template Tensor<T> where(const Mask&, const Tensor<T>&, const Operand<T>&); \
  template Tensor<T> masked_fill(const Tensor<T>&, const Mask&, double);      \
  template Tensor<T> negate(const Tensor<T>&);                                \
  template Tensor<T> exp(const Tensor<T>&);                                   \
  template Tensor<T> exp2(const Tensor<T>&);                                  \
  template Tensor<T> log(const Tensor<T>&);                                   \
  template Tensor<T> sqrt(const Tensor<T>&);                                  \
  template Tensor<T> square(const Tensor<T>&);                                \
  template Tensor<T> reciprocal(const Tensor<T>&);                            \
  template Tensor<T> pow(const Tensor<T>&, double);                           \
  template Tensor<T> abs(const Tensor<T>&);                                   \
  template Tensor<T> sin(const Tensor<T>&);                                   \
  template Tensor<T> cos(const Tensor<T>&);                                   \
  template Tensor<T> tanh(const Tensor<T>&);                                  \
  template Tensor<T> sigmoid(const Tensor<T>&);                               \
  template Tensor<T> softplus(const Tensor<T>&);                              \
  template Tensor<T> relu(const Tensor<T>&);                                  \
  template Tensor<T> elu(const Tensor<T>&);                                   \
  template Tensor<T> gelu(const Tensor<T>&);                                  \
  template Tensor<T> silu(const Tensor<T>&);                                  \
  template Mask less(const Tensor<T>&, const Tensor<T>&);                     \
  template Mask less_equal(const Tensor<T>&, const Tensor<T>&);
ATTN_INSTANTIATE(float)
ATTN_INSTANTIATE(double)
#undef ATTN_INSTANTIATE

}  // namespace attn
