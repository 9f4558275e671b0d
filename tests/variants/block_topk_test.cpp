#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

Tensor<float> numbers(const std::vector<float>& values) { return Tensor<float>({1, 1, std::ssize(values), 1}, values); }

// One head of one channel: logits are q k.
Qkv line(const std::vector<float>& q, const std::vector<float>& k, const std::vector<float>& v) {
  return {numbers(q), numbers(k), numbers(v)};
}

}  // namespace

TEST_CASE("block_topk: conforms where it chooses, by any score") {
  for (const char* name :
       {"block_topk:block=7,keep=3,first=0,local=2", "block_topk:block=12,cover=0.5,score=antidiagonal,stride=12",
        "block_topk:block=16,keep=3,score=antidiagonal,stride=4", "block_topk:block=8,keep=2,score=similar,similarity=0.12"})
    check_conforms(name);
}

TEST_CASE("block_topk: with as many blocks as there are, or all of the mass, it is full attention") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(100, 16, causal);
    const Qkv in = arrays(p);
    const Tensor<float> full = run("full", p, in);
    for (const char* name : {"block_topk:block=16,keep=7", "block_topk:block=16,keep=1000", "block_topk:block=1000,keep=1",
                             "block_topk:block=16,cover=1", "block_topk:block=16,score=similar,similarity=1",
                             "block_topk:block=64,keep=2,score=antidiagonal"})
      check_equal(run(name, p, in), full);
  }
}

TEST_CASE("block_topk: by hand, the two blocks of the largest means") {
  const Problem p = problem(8, 1, false, 1);
  const Qkv in = line(std::vector<float>(8, 1), {0, 0, 3, 3, 1, 1, 2, 2}, {0, 0, 1, 1, 2, 2, 3, 3});
  const auto out = run("block_topk:block=2,keep=2,first=0,local=0", p, in);
  const double three = std::exp(3.0), two = std::exp(2.0);
  for (index_t i = 0; i < 8; ++i) CHECK(out(0, 0, i, 0) == Approx((1 * three + 3 * two) / (three + two)));
  const auto with_first = run("block_topk:block=2,keep=2,first=1,local=0", p, in);
  for (index_t i = 0; i < 8; ++i) CHECK(with_first(0, 0, i, 0) == Approx(three / (three + 1)));
}

TEST_CASE("block_topk: equal scores, and no numbers, go to the block that comes first") {
  const Problem p = problem(8, 1, false, 1);
  Qkv in = line(std::vector<float>(8, 1), std::vector<float>(8, 5), {0, 0, 1, 1, 2, 2, 3, 3});
  const auto tied = run("block_topk:block=2,keep=2,first=0,local=0", p, in);
  for (index_t i = 0; i < 8; ++i) CHECK(tied(0, 0, i, 0) == Approx(0.5));
  in.k = numbers({std::nanf(""), 0, 5, 5, 5, 5, 5, 5});  // a block of NaN loses
  const auto without = run("block_topk:block=2,keep=2,first=0,local=0", p, in);
  for (index_t i = 0; i < 8; ++i) CHECK(without(0, 0, i, 0) == Approx(1.5));
}

TEST_CASE("block_topk: a share of the mass takes as few blocks as reach it") {
  // Softmax of the scores: 0.5, 0.3 and 0.2.
  const Problem p = problem(6, 1, false, 1);
  const auto ln = [](double x) { return static_cast<float>(std::log(x)); };
  const Qkv in = line(std::vector<float>(6, 1), {ln(0.2), ln(0.2), ln(0.5), ln(0.5), ln(0.3), ln(0.3)}, {0, 0, 1, 1, 2, 2});
  const auto first = [&](const char* name) { return run(name, p, in)(0, 0, 0, 0); };
  CHECK(first("block_topk:block=2,first=0,local=0,cover=0.45") == Approx(1));
  CHECK(first("block_topk:block=2,first=0,local=0,cover=0.55") == Approx((0.5 + 2 * 0.3) / 0.8));
  CHECK(first("block_topk:block=2,first=0,local=0,cover=0.85") == Approx(0.5 + 2 * 0.3));
  CHECK(first("block_topk:block=2,first=1,local=0,cover=0.45") == Approx(0.5 / 0.7));  // what is always seen counts
}

TEST_CASE("block_topk: antidiagonals find what cancels in the mean") {
  const Problem p = problem(12, 1, false, 1);
  const std::vector<float> alternating = {-2, 2, -2, 2}, still = {0.5, 0.5, 0.5, 0.5};
  std::vector<float> q, k, v;
  for (const int block : {0, 1, 2}) {
    for (std::size_t i = 0; i < 4; ++i) {
      q.push_back(alternating[i] + 0.25f);  // its mean likes `still`
      k.push_back(block == 1 ? -alternating[i] : still[i]);
      v.push_back(static_cast<float>(block));
    }
  }
  const Qkv in = line(q, k, v);
  CHECK(run("block_topk:block=4,keep=1,first=0,local=0", p, in)(0, 0, 0, 0) == Approx(0));
  CHECK(run("block_topk:block=4,keep=1,first=0,local=0,score=antidiagonal,stride=2", p, in)(0, 0, 0, 0) == Approx(1));
}

TEST_CASE("block_topk: keys that point every way are seen by all, and queries that do see all") {
  const Problem p = problem(12, 1, false, 1);
  const std::vector<float> ones(12, 1);
  const std::vector<float> v = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2};
  const char* name = "block_topk:block=4,keep=1,first=0,local=0,score=similar,similarity=0.5";
  CHECK(run(name, p, line(ones, {3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1}, v))(0, 0, 0, 0) == Approx(0));
  const double e = std::exp(1.0), e3 = std::exp(3.0), block = 2 * e + 2 / e;
  CHECK(run(name, p, line(ones, {3, 3, 3, 3, 1, 1, 1, 1, 1, -1, 1, -1}, v))(0, 0, 0, 0) == Approx(2 * block / (4 * e3 + block)));
  std::vector<float> mixed = ones;
  mixed[0] = mixed[1] = -1;
  const auto out = run(name, p, line(mixed, {3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1}, v));
  CHECK(out(0, 0, 2, 0) == Approx((e + 2 * e) / (e3 + 2 * e)));
  CHECK(out(0, 0, 4, 0) == Approx(0));
}

TEST_CASE("block_topk: causal rows always see their own block, and in the first block all before them") {
  const Problem p = problem(90, 16, true);
  const Qkv in = arrays(p);
  const Tensor<float> out = run("block_topk:block=20,keep=1,first=0", p, in), full = run("full", p, in);
  check_equal(slice(out, 2, 0, 20), slice(full, 2, 0, 20));
  check_equal(out, run("blockwise:block=20,before=0,after=0", p, in));
}

TEST_CASE("block_topk: what is in a block that nobody chose stays there") {
  const Problem p = problem(8, 1, false, 1);
  const float nan = std::nanf("");
  const Qkv in = line(std::vector<float>(8, 1), {0, 0, 3, 3, 1, 1, 2, 2}, {nan, nan, 1, 1, nan, nan, 3, 3});
  CHECK(finite(run("block_topk:block=2,keep=2,first=0,local=0", p, in)));
}

TEST_CASE("block_topk: the order of the keys in a block does not matter to the means") {
  const Problem p = problem(96, 16);
  const Qkv in = arrays(p);
  const auto turned = [&](const Tensor<float>& x) {
    return gather_rows(x, Indices::from({1, 2, 96}, [](index_t, index_t, index_t i) { return i / 16 * 16 + 15 - i % 16; }));
  };
  check_equal(run("block_topk:block=16,keep=3", p, {in.q, turned(in.k), turned(in.v)}), run("block_topk:block=16,keep=3", p, in));
}

TEST_CASE("block_topk: a long sequence is the definition's, keys that are shared by heads too") {
  Problem p = problem(2000, 32, true, 4);
  p.kv_heads = 2;
  for (const char* name : {"block_topk:keep=4", "block_topk:cover=0.3", "block_topk:score=antidiagonal,keep=4"}) {
    const Trial t(name, p);
    CHECK(distance(t.run(2), t.definition()) < 1e-6);
  }
}

TEST_CASE("block_topk: the pair count is the definition's") {
  check_pair_count("block_topk:block=7,keep=2");
  check_pair_count("block_topk:block=16,keep=3,first=2,local=2");
  check_pair_count("block_topk:block=9,keep=1,first=0,local=1");
}

TEST_CASE("block_topk: stretches divide blocks, causal queries see their own, and a step has no block of queries") {
  const Problem p = problem(50);
  CHECK(refusal("block_topk:score=antidiagonal,block=20", p).find("stride=16 does not divide block=20") != std::string::npos);
  CHECK(refusal("block_topk:local=0", p) == "");
  CHECK(refusal("block_topk:local=0", problem(50, 16, true)).find("local of at least 1") != std::string::npos);
  CHECK(refusal("block_topk:keep=0", p).find("keep=0 is outside") != std::string::npos);
  Problem step = problem(50, 16, true);
  step.q_len = 1;
  CHECK(refusal("block_topk", step).find("needs q_len equal to kv_len") != std::string::npos);
  step.pass = Pass::decode;
  CHECK(!refusal("block_topk", step).empty());
}
