#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("aft: the other forms conform too") {
  for (const char* name : {"aft:form=simple", "aft:form=local,window=5", "aft:form=conv,window=5", "aft:form=local,max_len=600"})
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

namespace {

// The fast path's error is of the size of that of the definition in float.
void check_near_definition(const Trial& t, const char* what) {
  const Tensor<float> exact = cast<float>(t.definition());
  INFO(t.variant->name().text() << (t.p.causal ? ", causal, " : ", ") << what);
  CHECK(finite(exact));
  CHECK(largest_difference(t.run(2), exact) < 4 * largest_difference(t.definition<float>(), exact) + 4e-6);
}

Tensor<float> with_key(const Tensor<float>& k, index_t row, float value) {
  return tabulate<float>(k.shape(), [&](index_t b, index_t h, index_t i, index_t d) { return i == row ? value : k(b, h, i, d); });
}

constexpr const char* forms[] = {"aft", "aft:form=simple", "aft:form=local,window=5", "aft:form=conv,window=40"};

}  // namespace

TEST_CASE("aft: keys of any size and in any order agree with the definition") {
  for (const char* name : forms) {
    for (const bool causal : {false, true}) {
      const Problem p = square(150, 20, causal);
      for (const float std : {10.0f, 100.0f, 1e4f}) {
        Trial t(name, p);
        t.k = t.k * std;
        check_near_definition(t, "keys at random");
      }
      // Each key above the one before: by a little in each of many panels, by more than floats hold within one.
      for (const float step : {0.5f, 2.0f, 30.0f}) {
        Trial t(name, p);
        t.k = tabulate<float>(t.k.shape(),
                              [&](index_t, index_t h, index_t i, index_t) { return step * static_cast<float>(h == 0 ? i : -i); });
        check_near_definition(t, "keys that rise, and keys that fall");
      }
      for (const index_t row : {0, 1, 64, 100, 149}) {
        for (const float value : {95.0f, 1e3f, -95.0f, -1e3f}) {
          Trial t(name, p);
          t.k = with_key(t.k, row, value);
          check_near_definition(t, "one key by itself");
        }
      }
    }
  }
}

TEST_CASE("aft: biases of any size agree with the definition") {
  for (const char* name : {"aft", "aft:form=local,window=5", "aft:form=conv,window=40"}) {
    for (const bool causal : {false, true}) {
      for (const float size : {3.0f, 30.0f, 1e3f}) {
        for (const float keys : {1.0f, 100.0f}) {
          Trial t(name, square(150, 20, causal));
          const Shape shape = t.parameters["w"].shape();
          t.parameters.set("w", normal(shape, "w", static_cast<double>(size)));
          t.k = t.k * keys;
          check_near_definition(t, "biases at random");
          t.parameters.set("w", full<float>(shape, size));
          check_near_definition(t, "equal biases");
          t.parameters.set("w", full<float>(shape, -size));
          check_near_definition(t, "equal biases below zero");
        }
      }
    }
  }
}

// What is left of a sum of everything once a large part is taken out of it has lost its digits.
TEST_CASE("aft: keys out of the window keep their digits beside a large one whose bias hides it") {
  for (const bool causal : {false, true}) {
    Trial t("aft:form=conv,window=2", square(80, 4, causal));
    t.parameters.set("w", full<float>({2, 3}, -60.0f));
    t.k = with_key(t.k, 40, 25);
    check_near_definition(t, "key 40 within the windows of its neighbours");
  }
}

TEST_CASE("aft: rows before a key that exceeds them by any amount, or is no number, keep their bits") {
  for (const char* name : {"aft:form=simple", "aft:form=local,window=5", "aft:form=conv,window=40"}) {
    Trial t(name, square(150, 20, true));
    const Tensor<float> before = t.run();
    for (const float value : {7.0f, 95.0f, 1e4f, INFINITY, std::nanf("")}) {
      for (const index_t row : {1, 70, 127}) {
        Trial changed(name, t.p);
        changed.k = with_key(t.k, row, value);
        const Tensor<float> after = changed.run();
        INFO(name << ", key " << row << " is " << value);
        CHECK(largest_difference(slice(before, 2, 0, row), slice(after, 2, 0, row)) == 0);
      }
    }
  }
}

TEST_CASE("aft: form=full, rows before a key that exceeds them by any amount, or is no number, keep their values") {
  Trial t("aft", square(150, 20, true));
  const Tensor<float> before = t.run();
  for (const float value : {7.0f, 95.0f, 1e4f, INFINITY, std::nanf("")}) {
    for (const index_t row : {1, 70, 127}) {
      Trial changed("aft", t.p);
      changed.k = with_key(t.k, row, value);
      INFO("key " << row << " is " << value);
      CHECK(largest_difference(slice(before, 2, 0, row), slice(changed.run(), 2, 0, row)) < 2e-6);
    }
  }
}

TEST_CASE("aft: sums over long sequences keep their digits") {
  for (const char* name : {"aft:form=simple", "aft:form=local,window=3"}) {
    for (const bool causal : {false, true}) {
      Trial t(name, square(1 << 15, 4, causal, 1));
      t.v = t.v + 1.0f;
      t.q = t.q * 0.0f + 40.0f;  // the gate is open
      if (t.variant->name().text().find("local") != std::string::npos) t.parameters.set("w", zeros<float>({1 << 15, 5}));
      const Tensor<double> k = exp(cast<double>(t.k)), kv = k * cast<double>(t.v);
      const Tensor<double> exact =
          causal ? cumsum(kv, 2) / cumsum(k, 2) : broadcast_to(sum(kv, 2, Keep::yes) / sum(k, 2, Keep::yes), k.shape());
      INFO(name << (causal ? ", causal" : ""));
      CHECK(largest_difference(t.run(), cast<float>(exact)) < 6e-7);
    }
  }
}

TEST_CASE("aft: refuses what it is not defined for") {
  Problem p = problem(64);
  CHECK(!variant("aft:max_len=63")->supports(p));
  CHECK(variant("aft:form=simple,max_len=63")->supports(p));
  p.value_dim = 8;
  CHECK(!variant("aft")->supports(p));
}
