#include "samples.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("Permuting moves every element to its place", "[algebra]") {
  const auto x = random({2, 3, 4, 5});
  const auto y = permute(x, {2, 0, -1, 1});
  REQUIRE(y.shape() == Shape{4, 2, 5, 3});
  CHECK(y(3, 1, 4, 2) == x(1, 2, 3, 4));
  CHECK(y(0, 1, 2, 0) == x(1, 0, 0, 2));
  CHECK(transpose(x)(1, 2, 4, 3) == x(1, 2, 3, 4));
  CHECK(swap_axes(x, 0, -1)(4, 2, 3, 1) == x(1, 2, 3, 4));
  check_gradient({x}, [](const auto& in) { return permute(in[0], {2, 0, 3, 1}); });
  check_gradient({x}, [](const auto& in) { return transpose(in[0]); });
}

TEST_CASE("Axes of extent 1 come and go, neighbours merge", "[algebra]") {
  const auto x = random({2, 3, 4});
  CHECK(unsqueeze(x, -1).shape() == Shape{2, 3, 4, 1});
  CHECK(unsqueeze(x, 0).shape() == Shape{1, 2, 3, 4});
  CHECK(squeeze(unsqueeze(x, 1), 1).shape() == x.shape());
  CHECK(flatten(x, 0, 1).shape() == Shape{6, 4});
  CHECK(flatten(x, -2, -1).shape() == Shape{2, 12});
  CHECK(flatten(x, 0, -1).shape() == Shape{24});
}

TEST_CASE("Slices take every step-th element", "[algebra]") {
  const auto x = arange<double>(7);
  CHECK(list(slice(x, 0, 1, 6)) == std::vector<double>{1, 2, 3, 4, 5});
  CHECK(list(slice(x, 0, 1, 7, 3)) == std::vector<double>{1, 4});
  CHECK(list(slice(x, 0, -3, -1)) == std::vector<double>{4, 5});
  CHECK(list(slice_from(x, 0, 5)) == std::vector<double>{5, 6});
  CHECK(slice(x, 0, 3, 3).size() == 0);
  CHECK(list(flip(x, 0)) == std::vector<double>{6, 5, 4, 3, 2, 1, 0});
  const auto y = random({3, 5, 2});
  CHECK(slice(y, 1, 1, 5, 2)(2, 1, 1) == y(2, 3, 1));
  check_gradient({y}, [](const auto& in) { return slice(in[0], 1, 1, 5, 2); });
  check_gradient({y}, [](const auto& in) { return slice(in[0], 1, 0, 3) * slice(in[0], 1, 2, 5) + slice(in[0], 1, 1, 4); });
  check_gradient({y}, [](const auto& in) { return flip(in[0], -2); });
  const auto parts = split_at(y, 1, {1, 4});
  CHECK(largest_difference(concat(parts, 1), y) == 0);
}

TEST_CASE("Concatenation, stacking and padding put parts side by side", "[algebra]") {
  const Tensor<double> a({1, 2}, {1, 2});
  const Tensor<double> b({1, 1}, {3});
  CHECK(list(concat<double>({a, b}, 1)) == std::vector<double>{1, 2, 3});
  CHECK(list(concat<double>({a, a * 10}, 0)) == std::vector<double>{1, 2, 10, 20});
  CHECK(stack<double>({a, a, a}, -1).shape() == Shape{1, 2, 3});
  CHECK(list(pad(a, 1, 1, 2)) == std::vector<double>{0, 1, 2, 0, 0});
  CHECK(list(pad(a, 0, 0, 1, 7)) == std::vector<double>{1, 2, 7, 7});
  const auto x = random({2, 3}, "x");
  const auto y = random({2, 2}, "y");
  check_gradient({x, y}, [](const auto& in) { return concat<double>({in[0], in[1], in[0]}, 1); });
  check_gradient({x}, [](const auto& in) { return pad(in[0], 0, 1, 2); });
  check_gradient({x}, [](const auto& in) { return stack<double>({in[0], in[0] * in[0]}, 1); });
}

TEST_CASE("A shift moves rows and fills with zeros", "[algebra]") {
  const Tensor<double> x({3}, {1, 2, 3});
  CHECK(list(shift(x, 0, 1)) == std::vector<double>{0, 1, 2});
  CHECK(list(shift(x, 0, -2)) == std::vector<double>{3, 0, 0});
  CHECK(list(shift(x, 0, 5)) == std::vector<double>{0, 0, 0});
  CHECK(list(shift(x, 0, 0)) == std::vector<double>{1, 2, 3});
  check_gradient({random({4, 3})}, [](const auto& in) { return shift(in[0], 0, 1) * in[0] + shift(in[0], 0, -2); });
}

TEST_CASE("Repeating copies each element, tiling the whole axis", "[algebra]") {
  const Tensor<double> x({2, 1}, {1, 2});
  CHECK(list(repeat(x, 0, 2)) == std::vector<double>{1, 1, 2, 2});
  CHECK(list(tile(x, 0, 2)) == std::vector<double>{1, 2, 1, 2});
  CHECK(list(broadcast_to(x, {2, 3})) == std::vector<double>{1, 1, 1, 2, 2, 2});
  const auto y = random({2, 3, 4});
  check_gradient({y}, [](const auto& in) { return repeat(in[0], 1, 3); });
  check_gradient({y}, [](const auto& in) { return broadcast_to(in[0], {5, 2, 3, 4}); });
}
