#include <limits>

#include "samples.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("Sums and means run over any axis", "[algebra]") {
  const auto x = random({2, 3, 37});
  for (const index_t axis : {0, 1, 2, -1, -2, -3}) {
    const auto y = sum(x, axis, Keep::yes);
    const auto a = axis_of(axis, 3);
    CHECK(y.shape() == with_extent(x.shape(), axis, 1));
    CHECK(sum(x, axis).shape() == without_axis(x.shape(), axis));
    double expected = 0;
    for (index_t i = 0; i < x.extent(axis); ++i) expected += x(a == 0 ? i : 1, a == 1 ? i : 2, a == 2 ? i : 5);
    CHECK(y(a == 0 ? 0 : 1, a == 1 ? 0 : 2, a == 2 ? 0 : 5) == Approx(expected).epsilon(1e-12));
    check_gradient({x}, [&](const auto& in) { return sum(in[0], axis); });
    check_gradient({x}, [&](const auto& in) { return mean(in[0], axis, Keep::yes); });
  }
  CHECK(sum(ones<double>({3, 5})).item() == 15);
  CHECK(mean(arange<double>(5)).item() == 2);
  check_gradient({x}, [](const auto& in) { return mean(square(in[0])); });
}

TEST_CASE("The same sum has the same bits every time", "[algebra]") {
  const auto x = cast<float>(random({1000}));
  CHECK(sum(x).item() == sum(x).item());
  CHECK(sum(reshape(x, {8, 125}), 1).data()[3] == sum(slice(x, 0, 375, 500)).item());
}

TEST_CASE("The maximum gives its gradient to the first of equals", "[algebra]") {
  const auto x = variable(Tensor<double>({2, 3}, {1, 5, 5, 4, 2, 3}));
  CHECK(list(max(x, -1)) == std::vector<double>{5, 4});
  CHECK(list(max(x, 0)) == std::vector<double>{4, 5, 5});
  CHECK(list(min(x, 1)) == std::vector<double>{1, 2});
  CHECK(list(gradients(sum(max(x, -1)), {x})[0]) == std::vector<double>{0, 1, 0, 1, 0, 0});
  check_gradient({random({3, 4, 2})}, [](const auto& in) { return max(in[0], 1, Keep::yes); });
  CHECK(list(argmax(x, 0)) == std::vector<index_t>{1, 0, 0});
  CHECK(list(argmax(x)) == std::vector<index_t>{1, 0});
}

TEST_CASE("A cumulative sum holds its own element", "[algebra]") {
  const Tensor<double> x({2, 3}, {1, 2, 3, 4, 5, 6});
  CHECK(list(cumsum(x, 1)) == std::vector<double>{1, 3, 6, 4, 9, 15});
  CHECK(list(cumsum(x, 0)) == std::vector<double>{1, 2, 3, 5, 7, 9});
  check_gradient({random({3, 4, 2})}, [](const auto& in) { return cumsum(in[0], 1); });
  check_gradient({random({3, 4, 2})}, [](const auto& in) { return cumsum(in[0], -1); });
}

TEST_CASE("The softmax of zeros is uniform and its rows sum to one", "[algebra]") {
  CHECK(largest_difference(softmax(zeros<double>({3, 4})), full<double>({3, 4}, 0.25)) == 0);
  const auto x = random({2, 5, 7}) * 10;
  for (const index_t axis : {0, 1, 2})
    CHECK(largest_difference(sum(softmax(x, axis), axis), ones<double>(without_axis(x.shape(), axis))) < 1e-14);
  CHECK(largest_difference(softmax(x), softmax(x + 1000)) < 1e-12);
  CHECK(largest_difference(log(softmax(x, 1)), log_softmax(x, 1)) < 1e-12);
  for (const index_t axis : {0, 1, 2}) {
    check_gradient({x * 0.1}, [&](const auto& in) { return softmax(in[0], axis); });
    check_gradient({x * 0.1}, [&](const auto& in) { return log_softmax(in[0], axis); });
    check_gradient({x * 0.1}, [&](const auto& in) { return logsumexp(in[0], axis); });
  }
}

TEST_CASE("A masked softmax is the softmax over what is allowed", "[algebra]") {
  const auto x = random({2, 3, 4});
  const Mask allowed = mask({3, 4}, [](index_t i, index_t j) { return j <= i; });
  const auto y = softmax(x, allowed);
  CHECK(largest_difference(y, softmax(masked_fill(x, !allowed, -std::numeric_limits<double>::infinity()))) < 1e-15);
  CHECK(y(1, 0, 0) == 1);
  CHECK(y(1, 0, 1) == 0);
  check_gradient({x}, [&](const auto& in) { return softmax(in[0], allowed); });
}

TEST_CASE("A softmax row without allowed elements is zero and so is its gradient", "[algebra]") {
  const auto x = random({3, 4});
  const Mask allowed = mask({3, 1}, [](index_t i, index_t) { return i != 1; });
  const auto leaf = variable(x);
  const auto y = softmax(leaf, allowed);
  CHECK(list(slice(y, 0, 1, 2)) == std::vector<double>(4, 0.0));
  const auto gradient = gradients(sum(square(y)), {leaf})[0];
  CHECK(list(slice(gradient, 0, 1, 2)) == std::vector<double>(4, 0.0));
  CHECK(gradient(0, 0) != 0);
  const auto nothing = full<double>({2, 3}, -std::numeric_limits<double>::infinity());
  CHECK(list(softmax(nothing)) == std::vector<double>(6, 0.0));
  CHECK(list(logsumexp(nothing, -1)) == std::vector<double>(2, -std::numeric_limits<double>::infinity()));
  const auto inf = variable(nothing);
  CHECK(list(gradients(sum(logsumexp(inf, -1)), {inf})[0]) == std::vector<double>(6, 0.0));
}

TEST_CASE("Row numbers are sorted with the lowest first among equals", "[algebra]") {
  const Tensor<double> x({2, 4}, {3, 1, 3, 2, 0, 0, 9, 0});
  CHECK(list(top_k(x, 2)) == std::vector<index_t>{0, 2, 2, 0});
  CHECK(list(argsort(x)) == std::vector<index_t>{1, 3, 0, 2, 0, 1, 3, 2});
  CHECK(list(sort(top_k(x, 3))) == std::vector<index_t>{0, 2, 3, 0, 1, 2});
  CHECK(list(argsort(Indices({4}, std::vector<index_t>{2, 0, 2, 1}))) == std::vector<index_t>{1, 3, 0, 2});
}
