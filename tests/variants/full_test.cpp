#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("full: values of ones give ones") {
  const Problem p = problem(77);
  Qkv in = arrays(p);
  in.v = ones<float>({1, 2, 77, 16});
  check_equal(run("full", p, in), in.v, 1e-6);
}

TEST_CASE("full: equal keys give the mean of the values") {
  const Problem p = problem(50);
  Qkv in = arrays(p);
  in.k = zeros<float>({1, 2, 50, 16});
  check_equal(run("full", p, in), broadcast_to(mean(in.v, -2, Keep::yes), {1, 2, 50, 16}));
}

TEST_CASE("full: two keys by hand") {
  const Problem p = problem(2, 1, false, 1);
  const Qkv in{Tensor<float>({1, 1, 2, 1}, {0.0f, 2.0f}), Tensor<float>({1, 1, 2, 1}, {1.0f, 0.0f}),
               Tensor<float>({1, 1, 2, 1}, {10.0f, 20.0f})};
  const Tensor<float> out = run("full", p, in);
  CHECK(out(0, 0, 0, 0) == Approx(15.0));
  CHECK(out(0, 0, 1, 0) == Approx((10 * std::exp(2.0) + 20) / (std::exp(2.0) + 1)));
}

TEST_CASE("full: a NaN in an allowed key reaches the rows that see it and no other") {
  const Problem p = problem(70, 16, true, 1);
  Qkv in = arrays(p);
  std::vector<float> k(in.k.values().begin(), in.k.values().end());
  k[40 * 16 + 3] = std::nanf("");
  in.k = Tensor<float>(in.k.shape(), k);
  const Tensor<float> out = run("full", p, in);
  for (index_t i = 0; i < 70; ++i) CHECK(std::isnan(out(0, 0, i, 5)) == (i >= 40));
}

TEST_CASE("full: logits of 80 neither overflow nor lose the largest key") {
  const Problem p = problem(64, 16, false, 1);
  Qkv in = arrays(p, 4.5);
  const auto v = variant("full");
  const Tensor<float> out = run("full", p, in);
  const GateResult gate = [&] {
    const Arena arena(1);
    return check_against_definition(*v, p, {view(in.q), view(in.k), view(in.v)}, {}, 1, view(out), arena);
  }();
  CHECK(passed(gate));
}

TEST_CASE("full: with more queries than keys the early causal rows see nothing and are zero") {
  Problem p = problem(10, 8, true, 1);
  p.kv_len = 4;
  const Tensor<float> out = run("full", p, arrays(p));
  for (index_t i = 0; i < 6; ++i) {
    for (index_t d = 0; d < 8; ++d) CHECK(out(0, 0, i, d) == 0.0f);
  }
  CHECK(out(0, 0, 6, 0) != 0.0f);
}

TEST_CASE("full: the pair count is the definition's") { check_pair_count("full"); }

TEST_CASE("full: bytes count the keys that are seen") { check_bytes("full"); }
