#include "attn/algebra/rounded_results.hpp"
#include "samples.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("A product agrees with three loops", "[algebra]") {
  const auto a = random({5, 7}, "a");
  const auto b = random({7, 3}, "b");
  const auto c = matmul(a, b);
  REQUIRE(c.shape() == Shape{5, 3});
  for (index_t i = 0; i < 5; ++i)
    for (index_t j = 0; j < 3; ++j) {
      double expected = 0;
      for (index_t k = 0; k < 7; ++k) expected += a(i, k) * b(k, j);
      CHECK(c(i, j) == Approx(expected).epsilon(1e-13));
    }
  CHECK(largest_difference(c, matmul_transposed(a, transpose(b))) < 1e-13);
}

TEST_CASE("Leading axes of a product are broadcast", "[algebra]") {
  const std::vector<std::pair<Shape, Shape>> cases = {
      {{2, 3, 4, 5}, {2, 3, 5, 6}}, {{2, 3, 4, 5}, {5, 6}}, {{4, 5}, {2, 3, 5, 6}},       {{2, 1, 4, 5}, {3, 5, 6}},
      {{2, 3, 4, 5}, {1, 3, 5, 6}}, {{3, 4, 5}, {1, 5, 6}}, {{1, 1, 4, 5}, {2, 3, 5, 6}},
  };
  for (const auto& [sa, sb] : cases) {
    INFO(to_string(sa) << " times " << to_string(sb));
    const auto a = random(sa, "a");
    const auto b = random(sb, "b");
    const auto c = matmul(a, b);
    const auto by_hand = sum(unsqueeze(a, -1) * unsqueeze(b, -3), -2);
    CHECK(largest_difference(c, by_hand) < 1e-13);
    CHECK(largest_difference(matmul_transposed(a, transpose(b)), by_hand) < 1e-13);
    check_gradient({a, b}, [](const auto& in) { return matmul(in[0], in[1]); });
    check_gradient({a, transpose(b)}, [](const auto& in) { return matmul_transposed(in[0], in[1]); });
  }
}

TEST_CASE("Products with an empty side are zeros or empty", "[algebra]") {
  CHECK(list(matmul(zeros<double>({2, 0}), zeros<double>({0, 3}))) == std::vector<double>(6, 0.0));
  CHECK(matmul(zeros<double>({0, 4}), zeros<double>({4, 3})).shape() == Shape{0, 3});
}

TEST_CASE("Products of rounded operands are exact products of what they are rounded to", "[algebra]") {
  const auto a = cast<float>(random({3, 5, 7}, "a")), b = cast<float>(random({3, 7, 4}, "b"));
  const auto rounded = [](const Tensor<float>& x) {
    return tabulate<float>(x.shape(), [&](index_t n, index_t i, index_t j) { return to_float(to_bf16(x(n, i, j))); });
  };
  const auto expected = matmul(rounded(a), rounded(b)), exact = matmul(a, b);
  REQUIRE(largest_difference(cast<double>(expected), cast<double>(exact)) > 1e-4);
  const auto same = [](const Tensor<float>& x, const Tensor<float>& y) { return std::ranges::equal(x.values(), y.values()); };
  {
    const RoundedProducts rounding(DType::bf16);
    CHECK(same(matmul(a, b), expected));
    CHECK(largest_difference(cast<double>(matmul_transposed(a, transpose(b))), cast<double>(expected)) < 1e-5);
    const auto wide = cast<double>(a);  // doubles are the truth
    CHECK(largest_difference(matmul(wide, cast<double>(b)), cast<double>(exact)) < 1e-5);
    {
      const ExactProducts choice;
      CHECK(same(matmul(a, b), exact));
    }
    CHECK(same(matmul(a, b), expected));
  }
  CHECK(same(matmul(a, b), exact));
  const RoundedProducts operands(DType::bf16);
  const RoundedResults tensors(true);
  CHECK(same(matmul(a, b), rounded(expected)));
  const ExactProducts choice;
  CHECK(same(matmul(a, b), exact));
}
