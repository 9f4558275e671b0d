#include "samples.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("QR gives orthonormal rows that span the same space", "[algebra]") {
  const auto a = random({4, 9});
  const auto q = qr_orthogonal_rows(a);
  CHECK(largest_difference(matmul_transposed(q, q), identity<double>(4)) < 1e-14);
  CHECK(largest_difference(matmul(matmul_transposed(a, q), q), a) < 1e-13);
  for (index_t i = 0; i < 4; ++i) CHECK(matmul_transposed(a, q)(i, i) > 0);
}

TEST_CASE("The SVD multiplies back to its matrix", "[algebra]") {
  for (const Shape& shape : {Shape{5, 8}, Shape{8, 5}}) {
    const auto a = random(shape);
    const auto [u, s, v] = svd(a);
    CHECK(largest_difference(matmul_transposed(u * s, v), a) < 1e-13);
    CHECK(largest_difference(matmul(transpose(u), u), identity<double>(5)) < 1e-13);
    for (index_t i = 1; i < 5; ++i) CHECK(s(i) <= s(i - 1));
  }
}

TEST_CASE("A linear system is solved", "[algebra]") {
  const auto a = random({6, 6}, "a");
  const auto x = random({6, 2}, "x");
  CHECK(largest_difference(solve(a, matmul(a, x)), x) < 1e-11);
}
