#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("vertical_slash: conforms where it chooses") {
  check_conforms("vertical_slash:block=8,last=5,vertical=10,slash=3,first=4");
}

TEST_CASE("vertical_slash: with all keys, or all distances, full attention") {
  const Problem p = problem(150, 16, true);
  const Qkv in = arrays(p);
  check_equal(run("vertical_slash:vertical=1000", p, in), run("full", p, in));
  check_equal(run("vertical_slash:vertical=0,slash=1000,first=0", p, in), run("full", p, in));
}

TEST_CASE("vertical_slash: without columns and with the nearest distances alone, the own block and the one before") {
  const Problem p = problem(64, 16, true);
  const Qkv in = arrays(p);
  const Tensor<float> out = run("vertical_slash:block=16,vertical=0,slash=1,first=0,local=1", p, in);
  check_equal(slice(out, 2, 0, 32), slice(run("full", p, in), 2, 0, 32));
  Qkv other = in;
  other.v = concat<float>({slice(in.v, 2, 0, 16) * 9.0f, slice(in.v, 2, 16, 64)}, 2);
  check_equal(slice(run("vertical_slash:block=16,vertical=0,slash=1,first=0,local=1", p, other), 2, 32, 64), slice(out, 2, 32, 64),
              0);
}

TEST_CASE("vertical_slash: a key that the last queries attend to is seen by all after it, once") {
  const Problem p = problem(128, 8, true, 1);
  Qkv in = arrays(p, 0.01);
  std::vector<float> k(in.k.data(), in.k.data() + in.k.size()), q(in.q.data(), in.q.data() + in.q.size()),
      v(static_cast<std::size_t>(in.v.size()), 0.0f);
  std::fill_n(k.begin() + 5 * 8, 8, 4.0f);
  std::fill_n(v.begin() + 5 * 8, 8, 1.0f);
  std::fill_n(q.begin(), 100 * 8, 0.0f);
  std::fill(q.begin() + 100 * 8, q.end(), 4.0f);
  const Qkv own{Tensor<float>(in.q.shape(), q), Tensor<float>(in.k.shape(), k), Tensor<float>(in.v.shape(), v)};
  const Tensor<float> out = run("vertical_slash:block=8,last=4,vertical=1,slash=1,first=0,local=1", p, own);
  CHECK(out(0, 0, 127, 0) == Approx(1).epsilon(1e-3));
  CHECK(out(0, 0, 79, 0) == Approx(1.0 / 17));  // the own block, the one before, and the key
  CHECK(out(0, 0, 15, 0) == Approx(1.0 / 16));  // where it lies in the block before
}

TEST_CASE("vertical_slash: a distance at which the last queries attend is seen by all") {
  const Problem p = problem(128, 128, true, 1);
  Qkv in = arrays(p, 0.01);
  // Query i asks for key i - 35.
  in.k = broadcast_to(identity<float>(128), {1, 1, 128, 128});
  in.q = tabulate<float>({1, 1, 128, 128}, [](index_t, index_t, index_t i, index_t c) { return c == i - 35 ? 200 : 0; });
  in.v = in.k;
  const Tensor<float> out = run("vertical_slash:block=8,last=8,vertical=0,slash=2,first=0,local=1", p, in);
  for (const index_t i : {36, 40, 77, 127}) CHECK(out(0, 0, i, i - 35) > 0.99f);
}

TEST_CASE("vertical_slash: heads that share keys choose for themselves; a ragged last block") {
  Problem p = square(203, 16, true, 4);
  p.kv_heads = 2;
  const Trial t("vertical_slash:block=16,last=7,vertical=20,slash=3,first=2", p);
  CHECK(distance(t.run(2), t.definition()) < 1e-6);
}

TEST_CASE("vertical_slash: declares the keys that are sure to be seen") {
  for (const index_t n : {1, 7, 64, 65, 200}) {
    const Problem p = problem(n, 4, true);
    CHECK(pairs_of_head("vertical_slash:block=8,vertical=0,slash=2,first=3,local=2", p) ==
          pairs_by_definition("vertical_slash:block=8,vertical=0,slash=2,first=3,local=2", p));
  }
}

TEST_CASE("vertical_slash: is causal, of a sequence with itself") {
  CHECK(refusal("vertical_slash", problem(50)).find("causal problems only") != std::string::npos);
  Problem p = problem(50, 16, true);
  p.kv_len = 60;
  CHECK(refusal("vertical_slash", p) != "");
}
