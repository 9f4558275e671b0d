#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

Tensor<float> numbers(const std::vector<float>& values) { return Tensor<float>({1, 1, std::ssize(values), 1}, values); }

}  // namespace

TEST_CASE("moba: conforms where queries choose") {
  for (const char* name : {"moba:block=16,keep=2", "moba:block=7,keep=4"}) check_conforms(name);
}

TEST_CASE("moba: with as many blocks as there are it is full attention, with its own alone blockwise") {
  const Problem p = problem(100, 16, true);
  const Qkv in = arrays(p);
  check_equal(run("moba:block=16,keep=7", p, in), run("full", p, in));
  check_equal(run("moba", p, in), run("full", p, in));
  check_equal(run("moba:block=16,keep=4000", p, in), run("full", p, in));
  check_equal(run("moba:block=16,keep=1", p, in), run("blockwise:block=16,before=0,after=0", p, in));
}

TEST_CASE("moba: by hand, each query has blocks of its own") {
  const Problem p = problem(6, 1, true, 1);
  Qkv in;
  in.q = numbers({1, 1, 1, 1, 1, -1});
  in.k = numbers({3, 1, 0, 0, 1, 1});  // means 2 and 0
  in.v = numbers({1, 2, 3, 4, 5, 6});
  const auto out = run("moba:block=2,keep=2", p, in);
  const double e = std::exp(1.0), e3 = std::exp(3.0);
  CHECK(out(0, 0, 0, 0) == Approx(1));
  CHECK(out(0, 0, 1, 0) == Approx((e3 + 2 * e) / (e3 + e)));
  CHECK(out(0, 0, 2, 0) == Approx((e3 + 2 * e + 3) / (e3 + e + 1)));  // its block's first row
  CHECK(out(0, 0, 4, 0) == Approx((e3 + 2 * e + 5 * e) / (e3 + 2 * e)));
  CHECK(out(0, 0, 5, 0) == Approx((3 + 4 + (5 + 6) / e) / (2 + 2 / e)));  // -1 likes the mean of 0
}

TEST_CASE("moba: equal means go to the block that comes first, and a mean of NaN to nobody") {
  const Problem p = problem(8, 1, true, 1);
  Qkv in{numbers(std::vector<float>(8, 1)), numbers(std::vector<float>(8, 1)), numbers({0, 0, 1, 1, 2, 2, 3, 3})};
  CHECK(run("moba:block=2,keep=2", p, in)(0, 0, 7, 0) == Approx(1.5));  // blocks 0 and 3
  in.k = numbers({std::nanf(""), 1, 1, 1, 1, 1, 1, 1});
  CHECK(run("moba:block=2,keep=2", p, in)(0, 0, 7, 0) == Approx(2));  // blocks 1 and 3
}

TEST_CASE("moba: a block whose mean stands out is found, and one that nobody chose stays out of it") {
  const Problem p = problem(160, 16, true, 1);
  Qkv in = arrays(p, 0.1);
  std::vector<float> k(in.k.data(), in.k.data() + in.k.size()), v(in.v.data(), in.v.data() + in.v.size()),
      q(in.q.data(), in.q.data() + in.q.size());
  for (index_t j = 32; j < 48; ++j) std::fill_n(k.begin() + j * 16, 16, 2.0f), std::fill_n(v.begin() + j * 16, 16, 7.0f);
  std::fill_n(v.begin() + 64 * 16, 16 * 16, std::nanf(""));
  std::fill_n(q.begin() + 159 * 16, 16, 2.0f);
  const auto out = run("moba:block=16,keep=2", p,
                       {Tensor<float>(in.q.shape(), q), Tensor<float>(in.k.shape(), k), Tensor<float>(in.v.shape(), v)});
  CHECK(out(0, 0, 159, 3) == Approx(7).epsilon(0.01));
}

TEST_CASE("moba: a long sequence is the definition's, a chunk of it and keys that are shared by heads too") {
  Problem p = problem(3000, 32, true, 4);
  p.kv_heads = 2;
  const Trial t("moba:block=128,keep=4", p);
  CHECK(distance(t.run(2), t.definition()) < 1e-6);
  p.q_len = 5;
  const Trial chunk("moba:block=128,keep=4", p);
  CHECK(distance(chunk.run(2), chunk.definition()) < 1e-6);
}

TEST_CASE("moba: the pair count is the definition's") {
  check_pair_count("moba:block=7,keep=2");
  check_pair_count("moba:block=16,keep=3");
}

TEST_CASE("moba: has a past to choose from when causal only, and a decode keeps all tokens") {
  CHECK(refusal("moba", problem(50)).find("causal problems only") != std::string::npos);
  CHECK(refusal("moba:keep=0", problem(50, 16, true)).find("keep=0 is outside") != std::string::npos);
  CHECK(state_rows("moba", 5000) == 5000);
}
