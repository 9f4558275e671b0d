#include "run.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("softmax1: conforms") { check_conforms("softmax1"); }

TEST_CASE("softmax1: is softmax with a zero key and a zero value in front") {
  const Problem p = problem(120);
  const Qkv in = arrays(p);
  Problem longer = p;
  longer.kv_len += 1;
  const Qkv with_zero{in.q, pad(in.k, 2, 1, 0), pad(in.v, 2, 1, 0)};
  check_equal(run("softmax1", p, in), run("full", longer, with_zero));
}

TEST_CASE("softmax1: by hand, and far from zero") {
  const Problem p = problem(2, 1, false, 1);
  Qkv in = arrays(p);
  in.q = Tensor<float>({1, 1, 2, 1}, {0, 1000});
  in.k = Tensor<float>({1, 1, 2, 1}, {1, -1});
  in.v = Tensor<float>({1, 1, 2, 1}, {3, 6});
  const auto out = run("softmax1", p, in);
  CHECK(out(0, 0, 0, 0) == Approx(3));  // weights 1/3, 1/3 and 1/3 for nothing
  CHECK(out(0, 0, 1, 0) == Approx(3));
  in.k = Tensor<float>({1, 1, 2, 1}, {-1, -1});
  CHECK(run("softmax1", p, in)(0, 0, 1, 0) == 0);
}

TEST_CASE("softmax1: bytes count the keys that are seen") { check_bytes("softmax1"); }
