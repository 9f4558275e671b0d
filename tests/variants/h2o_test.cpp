#include <algorithm>
#include <vector>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

Tensor<float> numbers(const std::vector<float>& values) { return Tensor<float>({1, 1, std::ssize(values), 1}, values); }

}  // namespace

TEST_CASE("h2o: conforms where keys are dropped") {
  for (const char* name : {"h2o:heavy=3,recent=4", "h2o:heavy=20,recent=1"}) check_conforms(name);
}

TEST_CASE("h2o: with room for all keys it is full attention, without heavy ones a window") {
  const Problem p = problem(150, 16, true);
  const Qkv in = arrays(p);
  check_equal(run("h2o", p, in), run("full", p, in));
  check_equal(run("h2o:heavy=140,recent=10", p, in), run("full", p, in));
  check_equal(run("h2o:heavy=0,recent=10", p, in), run("local:left=9,right=0", p, in));
  check_equal(slice(run("h2o:heavy=5,recent=8", p, in), 2, 0, 13), slice(run("full", p, in), 2, 0, 13));
}

// Weights 1; 1/2 1/2; then key 0 has 3/2 of sum and key 1, which leaves the last one, 1/2: one of them goes.
TEST_CASE("h2o: by hand, the key of the least sum goes, and for good") {
  const Problem p = problem(5, 1, true, 1);
  Qkv in{numbers({0, 0, 0, 100, 0}), numbers({0, 0, 0, 0, 0}), numbers({1, 2, 4, 8, 16})};
  const auto even = run("h2o:heavy=1,recent=1", p, in);
  for (const auto& [i, expected] : {std::pair{0, 1.0}, {1, 1.5}, {2, (1 + 4) / 2.0}, {3, (1 + 8) / 2.0}, {4, (1 + 16) / 2.0}})
    CHECK(even(0, 0, i, 0) == Approx(expected));
  in.k = numbers({0, 0, 0, 9, 0});  // its own query gives key 3 all weight: sums 0: 1 + 1/2 + 1/2, 3: 1
  CHECK(run("h2o:heavy=1,recent=1", p, in)(0, 0, 4, 0) == Approx((1 + 16) / 2.0));
  in.q = numbers({0, 100, 0, 0, 0}), in.k = numbers({0, 9, 0, 0, 0});  // query 1 gives key 1 all: 1 and 1, and the first stays
  CHECK(run("h2o:heavy=1,recent=1", p, in)(0, 0, 2, 0) == Approx((1 + 4) / 2.0));
  in.k = numbers({-9, 9, 0, 0, 0}), in.q = numbers({0, 100, 100, 0, 0});  // with two recent ones query 2 adds to it: 1 and 2
  CHECK(run("h2o:heavy=1,recent=2", p, in)(0, 0, 4, 0) == Approx((2 + 8 + 16) / 3.0));
}

TEST_CASE("h2o: what is kept has no smaller sum than what is dropped, and the last keys are always kept") {
  const index_t n = 90, heavy = 10, recent = 7;
  Problem p = square(n, 16, true, 1);
  p.value_dim = n;
  Trial t("h2o:heavy=10,recent=7", p);
  t.v = reshape(identity<float>(n), {1, 1, n, n});  // outputs are the weights
  const Tensor<float> weights = t.run();
  std::vector<double> sums(static_cast<std::size_t>(n), 0.0);
  std::vector<bool> kept(static_cast<std::size_t>(n), true);
  for (index_t i = 0; i < n; ++i) {
    double least_kept = 1e9, most_dropped = 0;
    index_t count = 0;
    for (index_t j = 0; j <= i; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const bool seen = weights(0, 0, i, j) > 0;
      count += seen;
      if (j > i - recent) {
        CHECK(seen);
      } else if (kept[at] && !seen) {
        most_dropped = std::max(most_dropped, sums[at]);
        kept[at] = false;
      } else {
        CHECK(seen == kept[at]);  // what is dropped never comes back
        if (seen) least_kept = std::min(least_kept, sums[at]);
      }
    }
    CHECK(count == std::min(i + 1, heavy + recent));
    CHECK(most_dropped <= least_kept + 1e-5);
    for (index_t j = 0; j <= i; ++j) sums[static_cast<std::size_t>(j)] += static_cast<double>(weights(0, 0, i, j));
  }
}

TEST_CASE("h2o: a NaN of a value that was dropped stays with the rows before") {
  const Problem p = problem(64, 16, true, 1);
  Qkv in = arrays(p);
  std::vector<float> v(in.v.data(), in.v.data() + in.v.size());
  v[3 * 16] = std::nanf("");
  in.v = Tensor<float>(in.v.shape(), v);
  const Tensor<float> out = run("h2o:heavy=0,recent=8", p, in);
  CHECK(!finite(slice(out, 2, 3, 11)));
  CHECK(finite(slice(out, 2, 11, 64)));
}

TEST_CASE("h2o: heads that share a kv head keep the same keys, in a whole sequence as in its definition") {
  Problem p = square(250, 24, true, 4);
  p.kv_heads = 2, p.value_dim = 250;
  Trial t("h2o:heavy=20,recent=15", p);
  t.v = broadcast_to(identity<float>(250), {1, 2, 250, 250});  // outputs are the weights
  const Tensor<float> weights = t.run(2);
  CHECK(distance(weights, t.definition()) < 1e-6);
  CHECK(distance(weights, t.run(1)) == 0);
  for (index_t j = 0; j < 250; ++j) CHECK((weights(0, 2, 249, j) > 0) == (weights(0, 3, 249, j) > 0));
}

TEST_CASE("h2o: the pair count is the definition's, and the state does not grow") {
  check_pair_count("h2o:heavy=9,recent=6");
  Problem p = problem(1000, 16, true);
  p.q_len = 1, p.pass = Pass::decode;
  const index_t bytes = variant("h2o:heavy=30,recent=20")->state_bytes(p);
  CHECK(bytes == 2 * 4 * (50 * (16 + 16 + 1) + 30));
  p.kv_len = 100000;
  CHECK(variant("h2o:heavy=30,recent=20")->state_bytes(p) == bytes);
}

TEST_CASE("h2o: is causal, and takes all tokens from the first") {
  CHECK(refusal("h2o", problem(50)).find("causal problems only") != std::string::npos);
  CHECK(refusal("h2o:recent=0", problem(50, 16, true)).find("recent=0 is outside") != std::string::npos);
  Problem p = problem(50, 16, true);
  p.q_len = 5;
  CHECK(refusal("h2o", p).find("needs q_len equal to kv_len") != std::string::npos);
}
