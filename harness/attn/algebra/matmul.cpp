#include "attn/algebra/matmul.hpp"

#include <algorithm>
#include <type_traits>

#include "attn/algebra/gradient.hpp"
#include "attn/algebra/layout.hpp"
#include "attn/algebra/node.hpp"
#include "attn/algebra/product.hpp"
#include "attn/algebra/reduce.hpp"
#include "attn/algebra/rounded_products.hpp"
#include "attn/algebra/rounded_results.hpp"
#include "attn/algebra/strided.hpp"
#include "attn/core/isa.hpp"

namespace attn {

using detail::edge;
using detail::record;

namespace {

thread_local DType operands_in_force = DType::f32;
thread_local bool results_in_force = false;

void round_to_operands(const float* from, index_t count, float* to) {
  const auto rounded = [](float value) {
    return operands_in_force == DType::bf16 ? to_float(to_bf16(value)) : to_float(to_f16(value));
  };
  ATTN_ASSERT(operands_in_force == DType::bf16 || operands_in_force == DType::f16);
  std::transform(from, from + count, to, rounded);
}

// A factor as the products in force read it.
template <class T>
const Elements<T>& factor(const Elements<T>& x, Elements<T>& rounded) {
  if constexpr (std::is_same_v<T, float>) {
    if (operands_in_force == DType::f32) return x;
    rounded = Elements<T>(x.shape());
    round_to_operands(x.data(), x.size(), rounded.writable());
    return rounded;
  } else {
    return x;
  }
}

enum class Op : bool { plain, transposed };

template <class T>
detail::Product<T>* chosen_product() {
#if defined(__x86_64__)
  if (chosen_isa() >= Isa::avx2) return detail::avx2::product;
#endif
  return detail::baseline::product;
}

Shape batch_of(const Shape& shape) {
  ATTN_ASSERT(shape.size() >= 2);
  return Shape(shape.begin(), shape.end() - 2);
}

template <class T>
Elements<T> product_of_operands(const Elements<T>& given_a, Op op_a, const Elements<T>& given_b, Op op_b) {
  Elements<T> rounded_a, rounded_b;
  const Elements<T>&a = factor(given_a, rounded_a), &b = factor(given_b, rounded_b);
  detail::Product<T>* const multiply = chosen_product<T>();
  const Shape batch_a = batch_of(a.shape());
  const Shape batch_b = batch_of(b.shape());
  const Shape batch = broadcast_shapes(batch_a, batch_b);
  detail::Factor left{a.extent(-2), a.extent(-1), op_a == Op::transposed};
  const detail::Factor right{b.extent(-2), b.extent(-1), op_b == Op::transposed};
  ATTN_ASSERT(left.inner() == right.outer());
  const index_t size_a = left.rows * left.columns;
  const index_t size_b = right.rows * right.columns;
  const index_t size_c = left.outer() * right.inner();
  Shape shape = batch;
  shape.push_back(left.outer());
  shape.push_back(right.inner());
  Elements<T> c(std::move(shape));
  if (c.size() == 0) return c;

  // One weight for the whole batch: one tall product.
  if (volume(batch_b) == 1 && op_a == Op::plain && batch == batch_a) {
    left.rows *= volume(batch);
    multiply(c.writable(), a.data(), left, b.data(), right);
    return c;
  }
  T* out = c.writable();
  detail::for_each_run<2>(batch, {broadcast_strides(batch_a, batch), broadcast_strides(batch_b, batch)},
                          [&](const auto& offsets, const auto& steps, index_t count) {
                            for (index_t i = 0; i < count; ++i) {
                              multiply(out, a.data() + (offsets[0] + i * steps[0]) * size_a, left,
                                       b.data() + (offsets[1] + i * steps[1]) * size_b, right);
                              out += size_c;
                            }
                          });
  return c;
}

template <class T>
Elements<T> product(const Elements<T>& a, Op op_a, const Elements<T>& b, Op op_b) {
  Elements<T> c = product_of_operands(a, op_a, b, op_b);
  if constexpr (std::is_same_v<T, float>) {
    if (results_in_force && operands_in_force != DType::f32) round_to_operands(c.data(), c.size(), c.writable());
  }
  return c;
}

}  // namespace

RoundedProducts::RoundedProducts(DType operands) : before_(operands_in_force) { operands_in_force = operands; }
RoundedProducts::~RoundedProducts() { operands_in_force = before_; }
RoundedResults::RoundedResults(bool rounded) : before_(results_in_force) { results_in_force = rounded; }
RoundedResults::~RoundedResults() { results_in_force = before_; }
DType RoundedProducts::operands() { return operands_in_force; }

template <class T>
Tensor<T> matmul(const Tensor<T>& a, const Tensor<T>& b) {
  const Elements<T>& x = a.array();
  const Elements<T>& y = b.array();
  return record(
      product(x, Op::plain, y, Op::plain),
      {edge(a, [=](const Tensor<T>& g) { return sum_to(Tensor<T>(product(g.array(), Op::plain, y, Op::transposed)), x.shape()); }),
       edge(b,
            [=](const Tensor<T>& g) { return sum_to(Tensor<T>(product(x, Op::transposed, g.array(), Op::plain)), y.shape()); })});
}

template <class T>
Tensor<T> matmul_transposed(const Tensor<T>& a, const Tensor<T>& b) {
  const Elements<T>& x = a.array();
  const Elements<T>& y = b.array();
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
