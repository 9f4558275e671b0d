#include "attn/algebra/product.hpp"

#include <algorithm>

#include "attn/core/isa.hpp"
#include "samples.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("The products of all instruction sets agree, transposed or not", "[algebra]") {
  std::vector<detail::Product<double>*> products = {detail::baseline::product};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) products.push_back(detail::avx2::product);
#endif
  const index_t n = 33, k = 65, m = 17;
  for (const bool left : {false, true}) {
    for (const bool right : {false, true}) {
      const auto a = random({n, k}, "a");
      const auto b = random({k, m}, "b");
      const auto stored_a = left ? transpose(a) : a;
      const auto stored_b = right ? transpose(b) : b;
      const auto expected = sum(unsqueeze(a, -1) * b, 1);
      for (const auto product : products) {
        Elements<double> c(Shape{n, m});
        product(c.writable(), stored_a.data(), {stored_a.extent(0), stored_a.extent(1), left}, stored_b.data(),
                {stored_b.extent(0), stored_b.extent(1), right});
        CHECK(largest_difference(Tensor<double>(c), expected) < 1e-12);
      }
    }
  }
}

namespace {

template <class T>
Elements<T> product_by(detail::Product<T>* product, const Tensor<T>& a, const Tensor<T>& b) {
  Elements<T> c(Shape{a.extent(0), b.extent(1)});
  product(c.writable(), a.data(), {a.extent(0), a.extent(1), false}, b.data(), {b.extent(0), b.extent(1), false});
  return c;
}

template <class T>
bool same_bits(const Tensor<T>& a, const Elements<T>& b) {
  return std::equal(a.data(), a.data() + a.size(), b.data(), b.data() + b.size());
}

}  // namespace

TEST_CASE("matmul takes the product of the chosen instruction set", "[algebra]") {
  const auto a = random({33, 65}, "a");
  const auto b = random({65, 17}, "b");
  const auto baseline = product_by(detail::baseline::product, a, b);
  for (const Isa isa : machine_isas()) {
    choose_isa(isa);
    INFO(to_string(isa));
#if defined(__x86_64__)
    const bool fast = isa >= Isa::avx2;
    CHECK(same_bits(matmul(a, b), fast ? product_by(detail::avx2::product, a, b) : baseline));
    CHECK(same_bits(matmul(a, b), baseline) == !fast);  // fused multiply-add leaves other last digits
#else
    CHECK(same_bits(matmul(a, b), baseline));
#endif
  }
  choose_isa(machine_isas().front());
}

TEST_CASE("a definition in double is as exact on every instruction set", "[algebra]") {
  const auto q = random({1, 2, 37, 24}, "q"), k = random({1, 2, 50, 24}, "k"), v = random({1, 2, 50, 19}, "v");
  const auto attention = [&] { return matmul(softmax(matmul_transposed(q, k) * 0.2, -1), v); };
  const auto best = attention();
  for (const Isa isa : machine_isas()) {
    choose_isa(isa);
    INFO(to_string(isa));
    CHECK(largest_difference(attention(), best) < 1e-14);
  }
  choose_isa(machine_isas().front());
}
