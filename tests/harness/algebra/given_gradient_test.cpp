#include "attn/algebra/given_gradient.hpp"

#include "samples.hpp"

using namespace attn;
using namespace attn::test;

namespace {

// a b, with its gradients by hand; `calls` counts how often they are asked for.
Tensor<double> product(const Tensor<double>& a, const Tensor<double>& b, int* calls = nullptr) {
  const Tensor<double> x = detach(a), y = detach(b);
  return with_gradient<double>(x * y, {a, b}, [=](const Tensor<double>& gradient) {
    if (calls != nullptr) ++*calls;
    return std::vector<Tensor<double>>{gradient * y, gradient * x};
  });
}

}  // namespace

TEST_CASE("A given gradient stands on the tape like one of the algebra's own", "[algebra]") {
  check_gradient({random({4, 3}, "a"), random({4, 3}, "b")},
                 [](const auto& in) { return tanh(product(in[0], exp(in[1]))) * in[0]; });
}

TEST_CASE("Given gradients are asked for once a pass, and again in the next", "[algebra]") {
  const auto a = variable(random({3}, "a")), b = variable(random({3}, "b"));
  int calls = 0;
  const auto y = sum(product(a, b, &calls) * product(a, a, &calls));
  const auto first = gradients(y, {a, b});
  CHECK(calls == 2);
  const auto second = gradients(y, {a, b});
  CHECK(calls == 4);
  CHECK(list(first[0]) == list(second[0]));
  CHECK(list(first[1]) == list(second[1]));
}

TEST_CASE("Without a variable nothing is recorded", "[algebra]") {
  CHECK_FALSE(product(random({3}, "a"), random({3}, "b")).requires_gradient());
  const auto a = variable(random({3}, "a"));
  int calls = 0;
  CHECK(largest_difference(gradients(sum(product(a, random({3}, "b"), &calls)), {a})[0], random({3}, "b")) == 0);
  CHECK(calls == 1);
}
