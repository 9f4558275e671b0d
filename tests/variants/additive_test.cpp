#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("additive: other options conform too") {
  for (const char* name : {"additive:size=16", "additive:size=5"}) check_conforms(name);
}

TEST_CASE("additive: v = 0 is uniform") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(130, 16, causal);
    const Qkv in = arrays(p);
    ParameterSet<float> set = make_parameters(variant("additive")->parameters(p), 1);
    set.set("v", zeros<float>({2, 64}));
    check_equal(run("additive", p, in, {.parameters = &set}), run("mean_v", p, in));
  }
}

TEST_CASE("additive: by hand, with tanh in its middle and at its ends") {
  const auto check = [](float size, float shift) {
    INFO("queries of " << size << ", shifted by " << shift);
    const Problem p = problem(2, 1, false, 1);
    Qkv in = arrays(p);
    in.q = Tensor<float>({1, 1, 2, 1}, {size + shift, -size + shift});
    in.k = Tensor<float>({1, 1, 2, 1}, {0.25f - shift, -shift});
    in.v = Tensor<float>({1, 1, 2, 1}, {1, 0});
    ParameterSet<float> set;
    set.set("W", ones<float>({1, 1, 1}));
    set.set("U", ones<float>({1, 1, 1}));
    set.set("v", full<float>({1, 1}, 3));
    const auto out = run("additive:size=1", p, in, {.parameters = &set});
    const auto expected = [](double q) { return 1 / (1 + std::exp(3 * (std::tanh(q) - std::tanh(q + 0.25)))); };
    CHECK(out(0, 0, 0, 0) == Approx(expected(static_cast<double>(size))));
    CHECK(out(0, 0, 1, 0) == Approx(expected(-static_cast<double>(size))));
  };
  for (const float size : {0.5f, 1.0f, 30.0f, 1e4f}) check(size, 0);
  // What is added may be any size, on either side of where a key's own exponential ends.
  for (const float shift : {28.0f, 29.875f, 30.0f, 32.0f, 43.0f, 64.0f, 1024.0f, 65536.0f}) check(0.5f, shift), check(0.5f, -shift);
}

TEST_CASE("additive: queries and keys of any size agree with the definition, causal too") {
  for (const float std : {10.0f, 25.0f, 100.0f}) {
    for (const bool causal : {false, true}) {
      Trial t("additive:size=16", square(200, 16, causal));
      // Every third panel of keys is ordinary.
      t.q = t.q * std;
      t.k = tabulate<float>(
          t.k.shape(), [&](index_t b, index_t h, index_t i, index_t d) { return t.k(b, h, i, d) * (i / 64 % 3 == 1 ? 1 : std); });
      const Tensor<float> exact = cast<float>(t.definition());
      INFO("standard deviation " << std << (causal ? ", causal" : ""));
      CHECK(largest_difference(t.run(2), exact) < 2 * largest_difference(t.definition<float>(), exact) + 2e-6);
    }
  }
}

TEST_CASE("additive: a later key beyond the range of its exponential leaves earlier rows their bits") {
  Trial t("additive:size=16", square(60, 16, true));
  const Tensor<float> before = t.run();
  Elements<float> k(t.k.shape());
  t.k.copy_to(View<float, 4>(k.writable(), {1, 2, 60, 16}));
  for (index_t d = 0; d < 16; ++d) k.writable()[40 * 16 + d] = 1000;  // of the first head
  t.k = Tensor<float>(std::move(k));
  const Tensor<float> after = t.run();
  for (index_t i = 0; i < 60; ++i) CHECK((before(0, 0, i, 3) == after(0, 0, i, 3)) == (i < 40));
}
