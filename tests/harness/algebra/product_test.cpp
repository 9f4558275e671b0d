#include "attn/algebra/product.hpp"

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
