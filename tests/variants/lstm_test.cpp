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
  Problem p = problem(37, 19, false, 2);
  for (const index_t batch : {2, 6, 7, 13}) {
    p.batch = batch;
    const Qkv in = arrays(p);
    const auto together = run("lstm", p, in, {.threads = 1});
    for (const index_t b : {index_t{0}, batch - 1}) {
      Problem alone = p;
      alone.batch = 1;
      Qkv one = in;
      one.q = slice(in.q, 0, b, b + 1), one.k = slice(in.k, 0, b, b + 1), one.v = slice(in.v, 0, b, b + 1);
      INFO("batch=" << batch << " b=" << b);
      CHECK(largest_difference(slice(together, 0, b, b + 1), run("lstm", alone, one, {.threads = 1})) == 0);
    }
  }
}
