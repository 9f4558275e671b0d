#include "samples.hpp"

using namespace attn;
using namespace attn::test;

namespace {

Indices row_numbers(Shape shape, const std::vector<index_t>& values) { return Indices(std::move(shape), values); }

}  // namespace

TEST_CASE("Rows of a table are taken by number", "[algebra]") {
  const Tensor<double> table({3, 2}, {0, 1, 10, 11, 20, 21});
  const auto rows = row_numbers({2, 2}, {2, 0, 0, -1});
  const auto y = take(table, rows, 0);
  CHECK(y.shape() == Shape{2, 2, 2});
  CHECK(list(y) == std::vector<double>{20, 21, 0, 1, 0, 1, 0, 0});
  CHECK(list(take(table, row_numbers({1}, {1}), -1)) == std::vector<double>{1, 11, 21});
  check_gradient({random({4, 3, 2})}, [&](const auto& in) { return take(in[0], rows, 1); });
}

TEST_CASE("Each head gathers its own rows and scatters them back", "[algebra]") {
  const auto x = random({2, 3, 5, 4});
  const auto rows = Indices::from({2, 3, 2}, [](index_t b, index_t h, index_t i) { return (b + 2 * h + 3 * i) % 5; });
  const auto y = gather_rows(x, rows);
  REQUIRE(y.shape() == Shape{2, 3, 2, 4});
  CHECK(y(1, 2, 1, 3) == x(1, 2, (1 + 4 + 3) % 5, 3));
  check_gradient({x}, [&](const auto& in) { return gather_rows(in[0], rows); });
  check_gradient({y}, [&](const auto& in) { return scatter_add_rows(in[0], rows, 5); });
  check_gradient({x}, [&](const auto& in) { return scatter_add_rows(gather_rows(in[0], rows), rows, 6); });
}

TEST_CASE("Gathering and scattering are adjoint, with repeats and gaps", "[algebra]") {
  const auto rows = row_numbers({2, 4}, {1, 1, -1, 0, 2, 2, 2, -1});
  const auto x = random({2, 3, 2}, "x");
  const auto y = random({2, 4, 2}, "y");
  CHECK(sum(gather_rows(x, rows) * y).item() == Approx(sum(x * scatter_add_rows(y, rows, 3)).item()));
  const auto shared = row_numbers({2}, {2, 0});
  CHECK(gather_rows(x, shared)(1, 0, 1) == x(1, 2, 1));
  check_gradient({x}, [&](const auto& in) { return gather_rows(in[0], shared); });
  check_gradient({random({3, 2})}, [&](const auto& in) { return gather_rows(in[0], rows); });
  check_gradient({random({4, 2})}, [&](const auto& in) { return scatter_add_rows(in[0], rows, 3); });
}

TEST_CASE("One element is taken along an axis", "[algebra]") {
  const auto x = random({2, 3, 4});
  const auto at = Indices::from({2, 2, 4}, [](index_t i, index_t j, index_t k) { return (i + j + k) % 3; });
  CHECK(take_along(x, at, 1)(1, 1, 2) == x(1, 1, 2));
  CHECK(take_along(x, at, 1)(0, 1, 3) == x(0, 1, 3));
  check_gradient({x}, [&](const auto& in) { return take_along(in[0], at, 1); });
}

TEST_CASE("One-hot rows have a one at the index, none for -1", "[algebra]") {
  const auto x = one_hot<double>(row_numbers({3}, {1, -1, 0}), 3);
  CHECK(list(x) == std::vector<double>{0, 1, 0, 0, 0, 0, 1, 0, 0});
}

TEST_CASE("A permutation and its inverse compose to the identity", "[algebra]") {
  const auto order = argsort(random({2, 9}));
  CHECK(list(gather(order, invert_permutation(order))) == list(Indices::from({2, 9}, [](index_t, index_t i) { return i; })));
}
