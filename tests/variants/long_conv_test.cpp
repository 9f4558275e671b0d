#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

ParameterSet<float> filter(const Tensor<float>& h) {
  ParameterSet<float> parameters;
  parameters.set("h", h);
  return parameters;
}

}  // namespace

TEST_CASE("long_conv: conforms with any options") {
  for (const char* name : {"long_conv:length=40", "long_conv:gated=no", "long_conv:filter=ema", "long_conv:length=200,gated=no"})
    check_conforms(name);
}

TEST_CASE("long_conv: a filter of one number at u shifts by u") {
  for (const index_t n : {1, 130, 509, 1024}) {
    for (const index_t u : {index_t{0}, index_t{1}, n / 3, n - 1}) {
      const Problem p = problem(n, 6, true, 1);
      const Qkv in = arrays(p);
      const auto parameters = filter(tabulate<float>({1, n, 6}, [&](index_t, index_t t, index_t) { return t == u; }));
      check_equal(run("long_conv:gated=no", p, in, {.parameters = &parameters}), shift(in.v, 2, u), 2e-6);
    }
  }
}

TEST_CASE("long_conv: one number in a sequence of zeros gives back the filter, channel by channel") {
  const Problem p = problem(700, 5, true, 2);
  Qkv in = arrays(p);
  in.v = tabulate<float>({1, 2, 700, 5}, [](index_t, index_t, index_t t, index_t c) { return t == 0 ? static_cast<float>(c) : 0; });
  const Tensor<float> h = normal({2, 700, 5}, "filter");
  const auto parameters = filter(h);
  const Tensor<float> out = run("long_conv:gated=no", p, in, {.parameters = &parameters});
  check_equal(
      out,
      tabulate<float>({1, 2, 700, 5}, [&](index_t, index_t b, index_t t, index_t c) { return h(b, t, c) * static_cast<float>(c); }),
      2e-5);
}

TEST_CASE("long_conv: gates multiply before and after") {
  const Problem p = problem(300, 8, true);
  const Qkv in = arrays(p);
  const auto parameters = filter(normal({2, 300, 8}, "filter"));
  const Tensor<float> bare = run("long_conv:gated=no", p, {in.q, in.k, in.k * in.v}, {.parameters = &parameters});
  check_equal(run("long_conv", p, in, {.parameters = &parameters}), in.q * bare, 1e-5);
}

TEST_CASE("long_conv: averages are the recurrence y_t = a y_(t-1) + c v_t") {
  const Problem p = problem(600, 3, true, 1);
  const Qkv in = arrays(p);
  ParameterSet<float> parameters;
  parameters.set("A", Tensor<float>({1, 1, 3}, {0, 2, 5}));
  parameters.set("c", Tensor<float>({1, 1, 3}, {1, 2, -1}));
  const auto out = run("long_conv:gated=no,filter=ema,order=1", p, in, {.parameters = &parameters});
  for (index_t c = 0; c < 3; ++c) {
    const double a = 1 / (1 + std::exp(-static_cast<double>(parameters["A"](0, 0, c))));
    double y = 0;
    for (index_t t = 0; t < 600; ++t) {
      y = a * y + static_cast<double>(parameters["c"](0, 0, c)) * static_cast<double>(in.v(0, 0, t, c));
      REQUIRE(out(0, 0, t, c) == Approx(y).margin(3e-5));
    }
  }
}

TEST_CASE("long_conv: what comes later, however large, leaves every bit of earlier rows as it was") {
  const Problem p = problem(1500, 16, true, 1);
  const Qkv in = arrays(p);
  const auto parameters = filter(normal({1, 1500, 16}, "filter"));
  const Tensor<float> before = run("long_conv:gated=no", p, in, {.parameters = &parameters});
  for (const index_t t : {1, 127, 128, 700, 1499}) {
    Qkv changed = in;
    changed.v = concat<float>({slice(in.v, 2, 0, t), slice_from(in.v, 2, t) * 1e4f}, 2);
    const Tensor<float> after = run("long_conv:gated=no", p, changed, {.parameters = &parameters});
    check_equal(slice(after, 2, 0, t), slice(before, 2, 0, t), 0);
    CHECK(largest_difference(slice_from(after, 2, t), slice_from(before, 2, t)) > 1);
  }
}

TEST_CASE("long_conv: long and odd lengths are the definition's, filters that end too, and a chunk of the last rows") {
  for (const char* name : {"long_conv", "long_conv:length=300", "long_conv:length=129,gated=no", "long_conv:filter=ema"}) {
    for (const index_t n : {1013, 2048}) {
      Problem p = problem(n, 40, true, 1);
      CHECK(distance(Trial(name, p).run(2), Trial(name, p).definition()) < 1e-6);
      p.q_len = 100;
      CHECK(distance(Trial(name, p).run(2), Trial(name, p).definition()) < 1e-6);
    }
  }
}

TEST_CASE("long_conv: is causal, and gates channel by channel") {
  CHECK(refusal("long_conv", problem(10)).find("causal problems only") != std::string::npos);
  Problem p = problem(10, 16, true);
  p.value_dim = 8;
  CHECK(refusal("long_conv", p).find("value_dim equal to head_dim") != std::string::npos);
  CHECK(refusal("long_conv:gated=no", p) == "");
}
