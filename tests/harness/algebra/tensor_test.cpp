#include <array>

#include "samples.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("A number stands for a tensor of shape []", "[algebra]") {
  const Tensor<double> x({2}, {3, 5});
  CHECK(list(x * 2) == std::vector<double>{6, 10});
  CHECK(list(1 - x) == std::vector<double>{-2, -4});
  CHECK(Tensor<float>(index_t{3}).item() == 3.0f);
  CHECK(Tensor<double>(1.5).shape().empty());
}

TEST_CASE("A tensor is tabulated from its indices", "[algebra]") {
  const auto x = tabulate<double>({2, 3}, [](index_t i, index_t j) { return 10 * i + j; });
  CHECK(list(x) == std::vector<double>{0, 1, 2, 10, 11, 12});
  CHECK(x(1, 2) == 12);
  CHECK(list(arange<double>(3)) == std::vector<double>{0, 1, 2});
  CHECK(list(identity<double>(2)) == std::vector<double>{1, 0, 0, 1});
  CHECK(list(generate<double>({2, 2}, [](index_t i) { return i * i; })) == std::vector<double>{0, 1, 4, 9});
}

TEST_CASE("A strided view is copied in and out", "[algebra]") {
  std::vector<float> memory(24);
  for (std::size_t i = 0; i < memory.size(); ++i) memory[i] = static_cast<float>(i);
  const View<float, 3> view(memory.data(), {2, 3, 2}, {1, 8, 4});
  const auto x = Tensor<double>::from(view);
  CHECK(x.shape() == Shape{2, 3, 2});
  CHECK(x(1, 2, 1) == 1 + 16 + 4);
  (x * 2).copy_to(view);
  CHECK(view(1, 2, 1) == 42);
  CHECK(memory[2] == 2);
}

TEST_CASE("Copies and reshapes share their elements", "[algebra]") {
  const auto x = random({4, 6});
  const Tensor<double> copy = x;
  CHECK(copy.data() == x.data());
  CHECK(reshape(x, {3, -1}).data() == x.data());
  CHECK(reshape(x, {3, -1}).shape() == Shape{3, 8});
}

TEST_CASE("A tensor without variables remembers nothing", "[algebra]") {
  const auto x = random({4});
  CHECK_FALSE((exp(x) * x).requires_gradient());
  CHECK((exp(x) * variable(x)).requires_gradient());
  CHECK_FALSE(detach(exp(variable(x))).requires_gradient());
}

TEST_CASE("A mask is built from a predicate of any number of indices", "[algebra]") {
  const Mask causal = mask({2, 3}, [](index_t i, index_t j) { return j <= i; });
  CHECK(list(causal) == std::vector<bool>{true, false, false, true, true, false});
  const Mask per_head = mask({1, 2, 2, 2}, [](index_t, index_t h, index_t i, index_t j) { return h == 1 && i == j; });
  CHECK(list(per_head) == std::vector<bool>{false, false, false, false, true, false, false, true});
  CHECK(list(causal & !causal) == std::vector<bool>(6, false));
  CHECK(list(causal | !causal) == std::vector<bool>(6, true));
  CHECK(list(transpose(causal)) == std::vector<bool>{true, true, false, true, false, false});
}

TEST_CASE("Values change number type by cast", "[algebra]") {
  CHECK(list(cast<double>(Tensor<float>({2}, {0.5f, 2.0f}))) == std::vector<double>{0.5, 2});
  CHECK(list(cast<double>(Indices::from({3}, [](index_t i) { return i * i; }))) == std::vector<double>{0, 1, 4});
  CHECK(list(cast<double>(mask({2}, [](index_t i) { return i == 1; }))) == std::vector<double>{0, 1});
}
