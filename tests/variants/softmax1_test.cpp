#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("softmax1: conforms with a learned sink too") { check_conforms("softmax1:sink=learned"); }

TEST_CASE("softmax1: sinks of 0 are the zero key, low ones nothing, and one of ln 2 counts twice") {
  const Problem p = problem(60, 16, true, 3);
  const Qkv in = arrays(p);
  ParameterSet<float> parameters;
  parameters.set("sink", Tensor<float>({3}, {0, -80, static_cast<float>(std::log(2.0))}));
  const auto out = run("softmax1:sink=learned", p, in, {.parameters = &parameters}), zero = run("softmax1", p, in),
             full = run("full", p, in);
  check_equal(slice(out, 1, 0, 1), slice(zero, 1, 0, 1));
  check_equal(slice(out, 1, 1, 2), slice(full, 1, 1, 2));
  for (index_t i = 0; i < 60; ++i) {  // 1 / zero = (1 + s) / t, 1 / out = (2 + s) / t, 1 / full = s / t
    const double twice = 2 / static_cast<double>(zero(0, 2, i, 0)) - 1 / static_cast<double>(full(0, 2, i, 0));
    CHECK(1 / static_cast<double>(out(0, 2, i, 0)) == Approx(twice).epsilon(1e-3));
  }
}

TEST_CASE("softmax1: is softmax with a zero key and a zero value in front") {
  const Problem p = problem(120);
  const Qkv in = arrays(p);
  Problem longer = p;
  longer.kv_len += 1;
  const Qkv with_zero{in.q, pad(in.k, 2, 1, 0), pad(in.v, 2, 1, 0)};
  check_equal(run("softmax1", p, in), run("full", longer, with_zero));
}

TEST_CASE("softmax1: by hand, and far from zero") {
  const Problem p = problem(2, 1, false, 1);
  Qkv in = arrays(p);
  in.q = Tensor<float>({1, 1, 2, 1}, {0, 1000});
  in.k = Tensor<float>({1, 1, 2, 1}, {1, -1});
  in.v = Tensor<float>({1, 1, 2, 1}, {3, 6});
  const auto out = run("softmax1", p, in);
  CHECK(out(0, 0, 0, 0) == Approx(3));  // weights 1/3, 1/3 and 1/3 for nothing
  CHECK(out(0, 0, 1, 0) == Approx(3));
  in.k = Tensor<float>({1, 1, 2, 1}, {-1, -1});
  CHECK(run("softmax1", p, in)(0, 0, 1, 0) == 0);
}

TEST_CASE("softmax1: bytes count the keys that are seen") { check_bytes("softmax1"); }
