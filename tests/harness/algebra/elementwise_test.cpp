#include "samples.hpp"

using namespace attn;
using namespace attn::test;

namespace {

struct Unary {
  const char* name;
  Tensor<double> (*tensor)(const Tensor<double>&);
  double (*number)(double);
  bool positive;  // only
};

const Unary unaries[] = {
    {"negate", negate, [](double x) { return -x; }, false},
    {"exp", exp, [](double x) { return std::exp(x); }, false},
    {"exp2", exp2, [](double x) { return std::pow(2.0, x); }, false},
    {"log", log, [](double x) { return std::log(x); }, true},
    {"sqrt", sqrt, [](double x) { return std::pow(x, 0.5); }, true},
    {"square", square, [](double x) { return x * x; }, false},
    {"reciprocal", reciprocal, [](double x) { return 1 / x; }, true},
    {"abs", abs, [](double x) { return x < 0 ? -x : x; }, false},
    {"sin", sin, [](double x) { return std::sin(x); }, false},
    {"cos", cos, [](double x) { return std::cos(x); }, false},
    {"tanh", tanh, [](double x) { return 1 - 2 / (std::exp(2 * x) + 1); }, false},
    {"sigmoid", sigmoid, [](double x) { return 0.5 + 0.5 * std::tanh(x / 2); }, false},
    {"softplus", softplus, [](double x) { return std::log(1 + std::exp(x)); }, false},
    {"relu", relu, [](double x) { return x < 0 ? 0 : x; }, false},
    {"elu", elu, [](double x) { return x < 0 ? std::exp(x) - 1 : x; }, false},
    {"gelu", gelu, [](double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2.0))); }, false},
    {"silu", silu, [](double x) { return x / (1 + std::exp(-x)); }, false},
    {"pow", [](const Tensor<double>& x) { return pow(x, 2.5); }, [](double x) { return std::pow(x, 2.5); }, true},
};

// The index into an operand of shape `from` that is broadcast to [2,3,4].
double broadcast_at(const Tensor<double>& x, index_t i, index_t j, index_t k) {
  const auto pick = [&](index_t axis, index_t index) { return x.rank() < axis || x.extent(-axis) == 1 ? 0 : index; };
  index_t offset = pick(3, i);
  if (x.rank() >= 2) offset = offset * x.extent(-2);
  offset += pick(2, j);
  if (x.rank() >= 1) offset = offset * x.extent(-1);
  return x.data()[offset + pick(1, k)];
}

}  // namespace

TEST_CASE("Every function of one number has its values and its derivative", "[algebra]") {
  for (const Unary& op : unaries) {
    INFO(op.name);
    const auto x = op.positive ? abs(random({3, 5})) + 0.2 : random_off_zero({3, 5});
    const auto y = op.tensor(x);
    for (index_t i = 0; i < x.size(); ++i) CHECK(y.data()[i] == Approx(op.number(x.data()[i])).epsilon(1e-12));
    check_gradient({x}, [&](const auto& in) { return op.tensor(in[0]); });
  }
}

TEST_CASE("Extreme arguments neither overflow nor become NaN", "[algebra]") {
  const Tensor<double> x({2}, {-1000, 1000});
  CHECK(list(sigmoid(x)) == std::vector<double>{0, 1});
  CHECK(list(softplus(x)) == std::vector<double>{0, 1000});
  CHECK(list(elu(x)) == std::vector<double>{-1, 1000});
  CHECK(list(gelu(x)) == std::vector<double>{0, 1000});
}

TEST_CASE("Broadcasting agrees with loops for every pair of shapes", "[algebra]") {
  const std::vector<Shape> shapes = {{2, 3, 4}, {1, 3, 4}, {2, 1, 4}, {2, 3, 1}, {3, 4}, {3, 1}, {1, 4}, {4}, {1}, {}};
  const Tensor<double> base({2, 3, 4}, std::vector<double>(24, 0.0));
  for (const Shape& sa : shapes) {
    for (const Shape& sb : shapes) {
      INFO(to_string(sa) << " with " << to_string(sb));
      const auto a = random(sa, "a");
      const auto b = random(sb, "b");
      const auto c = base + (a - 2 * b) * b;
      for (index_t i = 0; i < 2; ++i)
        for (index_t j = 0; j < 3; ++j)
          for (index_t k = 0; k < 4; ++k) {
            const double x = broadcast_at(a, i, j, k);
            const double y = broadcast_at(b, i, j, k);
            CHECK(c(i, j, k) == Approx((x - 2 * y) * y).margin(1e-14));
          }
      check_gradient({a, b}, [&](const auto& in) { return base + (in[0] - 2 * in[1]) * in[1]; });
    }
  }
}

TEST_CASE("Functions of two numbers have their derivatives on both sides", "[algebra]") {
  const auto a = random({2, 3}, "a");
  const auto b = random_off_zero({3}, "b");
  check_gradient({a, b}, [](const auto& in) { return in[0] + in[1]; });
  check_gradient({a, b}, [](const auto& in) { return in[0] - in[1]; });
  check_gradient({a, b}, [](const auto& in) { return in[0] / in[1]; });
  check_gradient({a, b}, [](const auto& in) { return maximum(in[0], in[1]); });
  check_gradient({a, b}, [](const auto& in) { return minimum(in[0], in[1]); });
  check_gradient({a}, [](const auto& in) { return minimum(maximum(in[0], -0.5), 0.5); });
  const Mask odd = mask({2, 3}, [](index_t i, index_t j) { return (i + j) % 2 == 1; });
  check_gradient({a, b}, [&](const auto& in) { return where(odd, in[0], in[1]); });
  check_gradient({a}, [&](const auto& in) { return masked_fill(in[0], odd, 3); });
  CHECK(masked_fill(a, odd, 3)(0, 1) == 3);
  CHECK(masked_fill(a, odd, 3)(0, 0) == a(0, 0));
}

TEST_CASE("A comparison gives a mask", "[algebra]") {
  const Tensor<double> x({3}, {1, 2, 3});
  CHECK(list(x < 2) == std::vector<bool>{true, false, false});
  CHECK(list(x <= 2) == std::vector<bool>{true, true, false});
  CHECK(list(x > 2) == std::vector<bool>{false, false, true});
  CHECK(list(2 <= x) == std::vector<bool>{false, true, true});
  const Indices group({4}, std::vector<index_t>{0, 1, 0, 1});
  CHECK(list(equal(group.reshaped({4, 1}), group))[2]);
  CHECK_FALSE(list(equal(group.reshaped({4, 1}), group))[1]);
}
