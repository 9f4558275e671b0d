#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("alibi: conforms") {
  check_conforms("alibi:window=30");
}

TEST_CASE("alibi: equal logits fade by a slope of each head, to both sides") {
  const Problem p = problem(9, 4, false, 4);
  Qkv in = arrays(p);
  in.q = in.q * 0.0f;
  in.v = tabulate<float>({1, 4, 9, 4}, [](index_t, index_t, index_t j, index_t c) { return j == c; });
  const Tensor<float> out = run("alibi", p, in);
  for (index_t h = 0; h < 4; ++h) {
    const double m = std::exp2(-2.0 * static_cast<double>(h + 1));
    double sum = 0;
    for (index_t j = 0; j < 9; ++j) sum += std::exp(-m * std::abs(static_cast<double>(2 - j)));
    for (index_t j = 0; j < 4; ++j)
      CHECK(out(0, h, 2, j) == Approx(std::exp(-m * std::abs(static_cast<double>(2 - j))) / sum).epsilon(1e-5));
  }
}

TEST_CASE("alibi: holds its digits far from the start, and in windows") {
  for (const char* name : {"alibi", "alibi:window=50"}) {
    for (const bool causal : {false, true}) {
      Problem p = square(300, 32, causal, 4);
      p.kv_len = 3000;
      p.kv_heads = 2;
      const Trial t(name, p);
      INFO(name << (causal ? ", causal" : ""));
      CHECK(distance(t.run(2), t.definition()) < 2e-6);
    }
  }
}

TEST_CASE("alibi: a window of one is the own value") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(77, 16, causal);
    const Qkv in = arrays(p);
    check_equal(run("alibi:window=1", p, in), in.v, 1e-6);
  }
}

TEST_CASE("alibi: more queries than keys stand before the first one") {
  Problem p = square(40, 16, false);
  p.kv_len = 17;
  const Trial t("alibi", p);
  CHECK(distance(t.run(), t.definition()) < 1e-6);
}
