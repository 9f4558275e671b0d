#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("snapkv: conforms where keys are dropped") {
  for (const char* name : {"snapkv:keep=3,window=4,prompt=20", "snapkv:keep=10,window=1,pool=1"}) check_conforms(name);
}

TEST_CASE("snapkv: with room for the prompt it is full attention, and so are the prompt's rows") {
  const Problem p = problem(150, 16, true);
  const Qkv in = arrays(p);
  const auto full = run("full", p, in);
  check_equal(run("snapkv", p, in), full);
  check_equal(run("snapkv:keep=3,prompt=150", p, in), full);
  check_equal(run("snapkv:keep=110,window=8,prompt=118", p, in), full);
  const auto few = run("snapkv:keep=3,window=8,prompt=118", p, in);
  check_equal(slice(few, 2, 0, 118), slice(full, 2, 0, 118));
  CHECK(largest_difference(slice(few, 2, 118, 150), slice(full, 2, 118, 150)) > 0.1);
}

TEST_CASE("snapkv: with none kept, rows past the prompt see its window and what follows") {
  Problem p = problem(60, 16, true);
  const Qkv in = arrays(p);
  const auto out = run("snapkv:keep=0,window=10,prompt=40", p, in);
  p.q_len = 20, p.kv_len = 30;
  const auto tail = [](const Tensor<float>& x, index_t first) { return slice(x, 2, first, 60); };
  check_equal(tail(out, 40), run("full", p, {tail(in.q, 40), tail(in.k, 30), tail(in.v, 30)}));
}

TEST_CASE("snapkv: what the last queries of the prompt look at is kept, with its neighbours") {
  Problem p = square(60, 8, true, 1);
  Trial t("snapkv:keep=3,window=2,pool=3,prompt=40", p);
  std::vector<float> q(t.q.data(), t.q.data() + t.q.size()), k(t.k.data(), t.k.data() + t.k.size());
  std::fill_n(k.begin() + 17 * 8, 8, 5.0f);
  for (const index_t i : {38, 39}) std::fill_n(q.begin() + i * 8, 8, 5.0f);
  t.q = Tensor<float>(t.q.shape(), q), t.k = Tensor<float>(t.k.shape(), k);
  // Keys 16, 17 and 18 have all the mean: that of the others is next to nothing.
  Trial other = Trial("snapkv:keep=3,window=2,pool=3,prompt=40", p);
  other.q = t.q, other.k = t.k;
  const auto changed = [&](index_t j) {
    std::vector<float> v(t.v.data(), t.v.data() + t.v.size());
    std::fill_n(v.begin() + j * 8, 8, 100.0f);
    other.v = Tensor<float>(t.v.shape(), v);
    return distance(slice(other.run(), 2, 40, 60), slice(t.run(), 2, 40, 60)) > 0;
  };
  for (const index_t j : {16, 17, 18, 38, 39, 40, 59}) CHECK(changed(j));
  for (const index_t j : {0, 15, 19, 37}) CHECK_FALSE(changed(j));
}

TEST_CASE("snapkv: equal sums keep the keys that come first, and a NaN that was dropped stays out") {
  const Problem p = problem(30, 4, true, 1);
  Qkv in = arrays(p);
  in.k = in.k * 0.0f;
  std::vector<float> v(in.v.data(), in.v.data() + in.v.size());
  v[10 * 4] = std::nanf("");
  in.v = Tensor<float>(in.v.shape(), v);
  const auto out = run("snapkv:keep=4,window=3,pool=1,prompt=20", p, in);
  CHECK(!finite(slice(out, 2, 10, 20)));
  const auto mean = [&](index_t i, index_t d) {
    double sum = 0;
    for (index_t j = 0; j <= i; ++j) sum += j < 4 || j >= 17 ? static_cast<double>(in.v(0, 0, j, d)) : 0;
    return sum / static_cast<double>(4 + i - 16);
  };
  for (const index_t i : {20, 29}) CHECK(out(0, 0, i, 2) == Approx(mean(i, 2)));
}

TEST_CASE("snapkv: a long prompt, keys that heads share, on one and more threads") {
  Problem p = square(900, 24, true, 4);
  p.kv_heads = 2;
  const Trial t("snapkv:keep=50,prompt=700", p);
  const Tensor<double> truth = t.definition();
  for (const int threads : {1, 3}) CHECK(distance(t.run(threads), truth) < 1e-6);
}

TEST_CASE("snapkv: the pair count is the definition's, and past the prompt a step reads what is kept") {
  check_pair_count("snapkv:keep=9,window=6,prompt=60");
  check_pair_count("snapkv:keep=2,window=4,pool=1");
  Problem p = problem(1000, 16, true);
  p.q_len = 1, p.pass = Pass::decode;
  const double all = variant("full")->cost(p).bytes, kept = variant("snapkv:keep=100,window=32,prompt=900")->cost(p).bytes;
  CHECK(all - kept == 2 * (868 - 100) * (16 + 16) * 4);
}

TEST_CASE("snapkv: what it refuses") {
  CHECK(refusal("snapkv", problem(50)).find("causal problems only") != std::string::npos);
  CHECK(refusal("snapkv:pool=4", problem(50, 16, true)).find("needs an odd pool, not 4") != std::string::npos);
}
