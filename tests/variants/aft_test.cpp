#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("aft: every form conforms") {
  for (const char* name :
       {"aft", "aft:form=simple", "aft:form=local,window=5", "aft:form=conv,window=5", "aft:form=local,max_len=600"})
    check_conforms(name);
}

TEST_CASE("aft: local with a window of all is full, with weights of zero simple") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(70, 16, causal);
    const Qkv in = arrays(p);
    ParameterSet<float> band, square;
    band.set("w", normal({70, 139}, "w"));
    square.set("w", tabulate<float>({70, 70}, [&](index_t t, index_t j) { return band["w"](t, j - t + 69); }));
    check_equal(run("aft:form=local,window=70", p, in, {.parameters = &band}), run("aft", p, in, {.parameters = &square}), 1e-5);
    band.set("w", zeros<float>({70, 139}));
    check_equal(run("aft:form=local,window=70", p, in, {.parameters = &band}), run("aft:form=simple", p, in));
  }
}

TEST_CASE("aft: equal keys and no bias give the mean of V, gated by the query") {
  for (const char* name : {"aft:form=simple", "aft:form=conv"}) {
    for (const bool causal : {false, true}) {
      const Problem p = problem(130, 16, causal);
      Qkv in = arrays(p);
      in.k = full<float>(in.k.shape(), 0.7f);
      ParameterSet<float> none;
      none.set("w", zeros<float>({2, 63}));
      check_equal(run(name, p, in, {.parameters = &none}), sigmoid(in.q) * run("mean_v", p, in));
    }
  }
}

TEST_CASE("aft: by hand") {
  const Problem p = problem(2, 1, false, 1);
  Qkv in = arrays(p);
  in.q = zeros<float>(in.q.shape());
  in.k = Tensor<float>({1, 1, 2, 1}, {0, std::log(3.0f)});
  in.v = Tensor<float>({1, 1, 2, 1}, {8, 16});
  ParameterSet<float> w;
  w.set("w", Tensor<float>({2, 2}, {std::log(3.0f), 0, 0, 0}));
  const auto out = run("aft", p, in, {.parameters = &w});
  CHECK(out(0, 0, 0, 0) == Approx(0.5 * (3 * 8 + 3 * 16) / 6.0));
  CHECK(out(0, 0, 1, 0) == Approx(0.5 * (1 * 8 + 3 * 16) / 4.0));
}

TEST_CASE("aft: large keys stay finite") {
  const Problem p = problem(100);
  Qkv in = arrays(p);
  in.k = in.k * 1e4f;
  const auto out = run("aft:form=simple", p, in);
  CHECK(largest_difference(out, out) == 0);
}

TEST_CASE("aft: refuses what it is not defined for") {
  Problem p = problem(64);
  CHECK(!variant("aft:max_len=63")->supports(p));
  CHECK(variant("aft:form=simple,max_len=63")->supports(p));
  p.value_dim = 8;
  CHECK(!variant("aft")->supports(p));
}
