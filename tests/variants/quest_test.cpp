#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("quest: conforms where it chooses") { check_conforms("quest:page=4,keep=3"); }

TEST_CASE("quest: with as many pages as there are, full attention; with one, the own page") {
  const Problem p = problem(150, 16, true);
  const Qkv in = arrays(p);
  check_equal(run("quest:keep=10", p, in), run("full", p, in));
  check_equal(run("quest:page=16,keep=1", p, in), run("blockwise:block=16,before=0,after=0", p, in));
  check_equal(slice(run("quest:page=16,keep=2", p, in), 2, 0, 32), slice(run("full", p, in), 2, 0, 32));
}

TEST_CASE("quest: the page of a key that dominates is always kept, though its mean says nothing") {
  const Problem p = problem(300, 8, true, 1);
  Qkv in = arrays(p, 0.5);
  std::vector<float> k(in.k.data(), in.k.data() + in.k.size()), q(in.q.data(), in.q.data() + in.q.size());
  std::fill_n(k.begin() + 100 * 8, 8, 9.0f);
  std::fill_n(k.begin() + 101 * 8, 8, -9.0f);  // the mean of the page is that of the others
  std::fill_n(q.begin() + 299 * 8, 8, 9.0f);
  in.k = Tensor<float>(in.k.shape(), k);
  in.q = Tensor<float>(in.q.shape(), q);
  check_equal(slice(run("quest:page=10,keep=2", p, in), 2, 299, 300), slice(in.v, 2, 100, 101), 1e-5);
}

TEST_CASE("quest: the order of the keys of a page does not matter to what is chosen") {
  const Problem p = problem(64, 16, true, 1);
  Qkv in = arrays(p);
  const Tensor<float> before = run("quest:page=8,keep=3", p, in);
  for (Tensor<float>* x : {&in.k, &in.v}) *x = concat<float>({flip(slice(*x, 2, 0, 8), 2), slice(*x, 2, 8, 64)}, 2);
  check_equal(slice(run("quest:page=8,keep=3", p, in), 2, 8, 64), slice(before, 2, 8, 64));
}

TEST_CASE("quest: a NaN in a page that is not kept stays there") {
  const Problem p = problem(64, 16, true, 1);
  Qkv in = arrays(p);
  std::vector<float> v(in.v.data(), in.v.data() + in.v.size());
  v[3 * 16] = std::nanf("");
  in.v = Tensor<float>(in.v.shape(), v);
  in.k = concat<float>({slice(in.k, 2, 0, 8) * 0.0f, slice(in.k, 2, 8, 64)}, 2);
  const Tensor<float> out = run("quest:page=8,keep=2", p, in);
  CHECK(finite(slice(out, 2, 24, 64)));
  CHECK(!finite(slice(out, 2, 0, 8)));
}

TEST_CASE("quest: many rows, heads that share keys, queries at the end of longer keys") {
  Problem p = square(150, 24, true, 4);
  p.kv_heads = 2;
  const Trial whole("quest:page=5,keep=6", p);
  CHECK(distance(whole.run(2), whole.definition()) < 1e-6);
  p.kv_len = 333;
  const Trial end("quest:page=7,keep=9", p);
  CHECK(distance(end.run(2), end.definition()) < 1e-6);
  CHECK(distance(end.run(3), end.run(1)) == 0);
}

TEST_CASE("quest: a sequence is kept with the bounds of its pages") {
  Problem p = problem(1000, 16, true);
  p.q_len = 1;
  p.pass = Pass::decode;
  CHECK(variant("quest")->state_bytes(p) == 2 * 4 * (1000 * (16 + 16) + 63 * 2 * 16));
}

TEST_CASE("quest: is causal") { CHECK(refusal("quest", problem(50)).find("causal problems only") != std::string::npos); }
