#include "batches.hpp"
#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("gru: two steps by hand") {
  const Problem p = problem(2, 1, false, 1);
  Qkv in = arrays(p);
  in.q = Tensor<float>({1, 1, 2, 1}, {1, -2});
  ParameterSet<float> set;
  set.set("W", Tensor<float>({1, 1, 3}, {0.5f, -1, 2}));
  set.set("U", Tensor<float>({1, 1, 3}, {1, 0.25f, -0.5f}));
  set.set("b", Tensor<float>({1, 1, 3}, {0.1f, 0.2f, 0.3f}));
  set.set("c", Tensor<float>({1, 1, 3}, {0, -0.1f, 0.7f}));
  const auto out = run("gru", p, in, {.parameters = &set});
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto step = [&](double x, double h) {
    const double r = sigmoid(0.5 * x + 0.1 + h), z = sigmoid(-x + 0.2 + 0.25 * h - 0.1);
    return (1 - z) * std::tanh(2 * x + 0.3 + r * (-0.5 * h + 0.7)) + z * h;
  };
  const double first = step(1, 0);
  CHECK(out(0, 0, 0, 0) == Approx(first));
  CHECK(out(0, 0, 1, 0) == Approx(step(-2, first)));
}

// Sequences of a head take their steps together.
TEST_CASE("gru: a batch holds what its sequences give alone, whatever shares their steps") { check_batch_is_its_sequences("gru"); }
