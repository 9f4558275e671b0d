#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("hedgehog: maps of zeros weigh all visible keys alike") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(70, 16, causal);
    const Qkv in = arrays(p);
    ParameterSet<float> parameters;
    for (const char* name : {"W_q", "W_k"}) parameters.set(name, zeros<float>({2, 16, 16}));
    check_equal(run("hedgehog", p, in, {.parameters = &parameters}), run("mean_v", p, in), 1e-4);
  }
}

TEST_CASE("hedgehog: by hand") {
  const Problem p = problem(2, 2, false, 1);
  Qkv in = arrays(p);
  in.q = Tensor<float>({1, 1, 2, 2}, {0, 0, 1, 0});
  in.k = Tensor<float>({1, 1, 2, 2}, {1, 0, 0, 0});
  in.v = Tensor<float>({1, 1, 2, 2}, {1, 0, 0, 1});
  const auto out = run("hedgehog", p, in);
  CHECK(out(0, 0, 0, 0) == Approx(0.5));
  const double s = 1 / (1 + std::exp(-1.0)), self = 2 * (s * s + (1 - s) * (1 - s)),
               other = 1;  // features s, 1-s, 1-s, s and halves
  CHECK(out(0, 0, 1, 0) == Approx(self / (self + other)).epsilon(1e-5));
}

TEST_CASE("hedgehog: large maps make features that pick one number, and weights that pick the keys which share it") {
  const Problem p = problem(8, 4, false, 1);
  Qkv in = arrays(p);
  in.q = in.k = tabulate<float>({1, 1, 8, 4}, [](index_t, index_t, index_t i, index_t c) { return i % 4 == c ? 1 : 0; });
  in.v = tabulate<float>({1, 1, 8, 4}, [](index_t, index_t, index_t i, index_t) { return i % 4; });
  ParameterSet<float> parameters;
  const Tensor<float> large = reshape(identity<float>(4), {1, 4, 4}) * 200.0f;
  parameters.set("W_q", large);
  parameters.set("W_k", large);
  const auto out = run("hedgehog", p, in, {.parameters = &parameters});
  // Of W x the one, weight 1; of -W x the three others alike, 2/9 of 3 shared where numbers differ and 1/3 where not.
  const double same = 1 + 1.0 / 3, different = 2.0 / 9;
  CHECK(out(0, 0, 3, 0) == Approx((3 * same + different * (0 + 1 + 2)) / (same + 3 * different)).epsilon(1e-5));
}

TEST_CASE("hedgehog: stays finite") { check_stays_finite("hedgehog"); }
