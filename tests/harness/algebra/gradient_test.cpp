#include "samples.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("Gradients of full attention flow to q, k and v", "[algebra]") {
  const Mask causal = mask({6, 6}, [](index_t i, index_t j) { return j <= i; });
  check_gradient({random({2, 2, 6, 4}, "q"), random({2, 2, 6, 4}, "k"), random({2, 2, 6, 3}, "v")},
                 [&](const auto& in) { return matmul(softmax(matmul(in[0], transpose(in[1])) * 0.5, causal), in[2]); });
}

TEST_CASE("A tensor used twice gets both gradients", "[algebra]") {
  const auto x = variable(Tensor<double>({2}, {3, 4}));
  const auto y = x * x + x;
  CHECK(list(gradients(sum(y), {x})[0]) == std::vector<double>{7, 9});
  CHECK(list(gradients(sum(y + y), {x})[0]) == std::vector<double>{14, 18});
}

TEST_CASE("What the output does not depend on has a zero gradient", "[algebra]") {
  const auto x = variable(random({3}, "x"));
  const auto y = variable(random({2}, "y"));
  CHECK(list(gradients(sum(x), {x, y})[1]) == std::vector<double>{0, 0});
  CHECK(list(gradients(sum(detach(x) * x), {x})[0]) == list(detach(x)));
  CHECK(list(gradients(Tensor<double>(1), {y})[0]) == std::vector<double>{0, 0});
}

TEST_CASE("Gradients may be asked for in the middle of the graph", "[algebra]") {
  const auto x = variable(Tensor<double>({1}, {2}));
  const auto y = x * x;
  const auto z = sum(y * y);
  const auto g = gradients(z, {y, x});
  CHECK(g[0].item() == 8);
  CHECK(g[1].item() == 32);
}

TEST_CASE("A recurrence of 100000 steps is differentiated and freed without overflowing the stack", "[algebra]") {
  const auto x = variable(Tensor<double>(1.0));
  Tensor<double> state = x;
  for (int step = 0; step < 100000; ++step) state = state + x;
  CHECK(gradients(state, {x})[0].item() == 100001);
}

TEST_CASE("A recurrence over slices agrees with the cumulative sum", "[algebra]") {
  check_gradient({random({5, 3})}, [](const auto& in) {
    std::vector<Tensor<double>> states;
    Tensor<double> state = zeros<double>({1, 3});
    for (index_t t = 0; t < 5; ++t) {
      state = tanh(state * 0.5 + slice(in[0], 0, t, t + 1));
      states.push_back(state);
    }
    return concat(states, 0);
  });
}
