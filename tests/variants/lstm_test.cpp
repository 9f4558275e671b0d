#include "batches.hpp"
#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("lstm: two steps by hand") {
  const Problem p = problem(2, 1, false, 1);
  Qkv in = arrays(p);
  in.q = Tensor<float>({1, 1, 2, 1}, {1, -2});
  ParameterSet<float> set;
  set.set("W", Tensor<float>({1, 1, 4}, {0.5f, -1, 2, 1}));
  set.set("U", Tensor<float>({1, 1, 4}, {1, 0.25f, -0.5f, 3}));
  set.set("b", Tensor<float>({1, 1, 4}, {0.1f, 0.2f, 0.3f, 0}));
  set.set("c", Tensor<float>({1, 1, 4}, {0, -0.1f, 0.7f, 0.5f}));
  const auto out = run("lstm", p, in, {.parameters = &set});
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  double h = 0, memory = 0;
  for (index_t t = 0; t < 2; ++t) {
    const double x = t == 0 ? 1 : -2;
    const double i = sigmoid(0.5 * x + 0.1 + h), f = sigmoid(-x + 0.1 + 0.25 * h), g = std::tanh(2 * x + 1 - 0.5 * h);
    const double o = sigmoid(x + 0.5 + 3 * h);
    memory = f * memory + i * g;
    h = o * std::tanh(memory);
    CHECK(out(0, 0, t, 0) == Approx(h));
  }
}

// Sequences of a head take their steps together.
TEST_CASE("lstm: a batch holds what its sequences give alone, whatever shares their steps") {
  check_batch_is_its_sequences("lstm");
}
