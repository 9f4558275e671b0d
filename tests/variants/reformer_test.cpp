#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

// Full attention without the diagonal, keys x / |x|, logits not scaled; a row that sees nothing keeps its own value.
Tensor<float> full_without_self(const Problem& p, const Qkv& in) {
  const Tensor<double> x = cast<double>(in.q), v = cast<double>(in.v);
  const Mask others = mask({p.q_len, p.q_len}, [&](index_t i, index_t j) { return i != j && (!p.causal || j < i); });
  const Tensor<double> out = matmul(softmax(matmul_transposed(x, l2_normalize(x)), others), v);
  const Mask alone = mask({p.q_len, 1}, [&](index_t i, index_t) { return p.q_len == 1 || (p.causal && i == 0); });
  return cast<float>(where(alone, v, out));
}

}  // namespace

TEST_CASE("reformer: one chunk is full attention without the diagonal, whatever the rounds and the ring") {
  for (const index_t n : {1, 2, 50}) {
    for (const bool causal : {false, true}) {
      const Problem p = problem(n, 16, causal);
      const Qkv in = arrays(p);
      for (const char* name : {"reformer:chunk=64,rounds=1", "reformer:chunk=64,rounds=3", "reformer:chunk=50,rounds=2,wrap=none",
                               "reformer:chunk=64,before=3,after=2"}) {
        INFO(name << " at " << n);
        check_equal(run(name, p, in), full_without_self(p, in));
      }
    }
  }
}

TEST_CASE("reformer: keys of its own, in one chunk, are full attention") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(50, 16, causal);
    const Qkv in = arrays(p);
    check_equal(run("reformer:chunk=64,keys=own", p, in), run("full", p, in));
  }
}

TEST_CASE("reformer: bidirectional chunks that see all others are full attention without the diagonal") {
  const Problem p = problem(64);
  const Qkv in = arrays(p);
  check_equal(run("reformer:chunk=16,rounds=1,before=2,after=1", p, in), full_without_self(p, in));
}

TEST_CASE("reformer: tokens in separate directions find their own kind") {
  // Four directions, of which every token is one: equal tokens share every bucket, so a query sees its kind only when each kind
  // fills a chunk; values are the kind's number.
  const Problem p = problem(64, 16, false, 1);
  Qkv in = arrays(p);
  in.q = tabulate<float>({1, 1, 64, 16}, [](index_t, index_t, index_t i, index_t d) { return d == i % 4 ? 60.0f : 0.0f; });
  in.v = tabulate<float>({1, 1, 64, 16}, [](index_t, index_t, index_t i, index_t) { return static_cast<float>(i % 4); });
  const Tensor<float> out = run("reformer:chunk=16,rounds=4,buckets=64", p, in);
  for (index_t i = 0; i < 64; ++i) CHECK(out(0, 0, i, 0) == Approx(static_cast<double>(i % 4)).margin(1e-5));
}

TEST_CASE("reformer: same_bucket=yes sees the own bucket only") {
  // As above, in one chunk and with all logits equal: the answer is the mean over what is seen.
  const Problem p = problem(64, 16, false, 1);
  Qkv in = arrays(p);
  in.q = tabulate<float>({1, 1, 64, 16}, [](index_t, index_t, index_t i, index_t d) { return d == i % 4 ? 60.0f : 0.0f; });
  in.v = tabulate<float>({1, 1, 64, 16}, [](index_t, index_t, index_t i, index_t) { return static_cast<float>(i % 4); });
  const char* options = "reformer:chunk=64,rounds=1,buckets=64,factors=one,logit_scale=0";
  const Tensor<float> all = run(options, p, in), own = run(std::string(options) + ",same_bucket=yes", p, in);
  for (index_t i = 0; i < 64; ++i) {
    CHECK(own(0, 0, i, 0) == Approx(static_cast<double>(i % 4)).margin(1e-5));
    CHECK(all(0, 0, i, 0) == Approx(1.5).margin(0.05));
  }
}

TEST_CASE("reformer: unique=yes counts a pair once, however often it meets") {
  // With all logits equal and the identity for values, a row shows how much each key counts.
  const index_t n = 128;
  Problem p = problem(n, 16, false, 1);
  p.value_dim = n;
  Qkv in = arrays(p);
  in.v = reshape(identity<float>(n), {1, 1, n, n});
  const std::string options = "reformer:chunk=16,rounds=4,wrap=none,logit_scale=0";
  const auto uneven_rows = [&](const Tensor<float>& out) {
    index_t uneven = 0;
    for (index_t i = 0; i < n; ++i) {
      float least = 1, most = 0;
      for (index_t j = 0; j < n; ++j) {
        if (const float weight = out(0, 0, i, j); weight > 1e-4f) least = std::min(least, weight), most = std::max(most, weight);
      }
      uneven += most > 1.01f * least;
    }
    return uneven;
  };
  CHECK(uneven_rows(run(options + ",unique=yes", p, in)) == 0);
  CHECK(uneven_rows(run(options, p, in)) > n / 2);
  CHECK(refusal("reformer:unique=yes", p).find("wrap=none") != std::string::npos);
}

TEST_CASE("reformer: without a ring the neighbours of a chunk end with its round") {
  // The last chunk of 8 tokens has nothing after it, so that its rows alone do not care how far a query sees.
  const Problem p = problem(64, 16, false, 1);
  const Qkv in = arrays(p);
  for (const char* rounds : {"1", "2"}) {
    const std::string options = std::string("reformer:chunk=8,before=0,keys=own,rounds=") + rounds + ",wrap=none,after=";
    const Tensor<float> near = run(options + "0", p, in), far = run(options + "15", p, in);
    index_t same = 0;
    for (index_t i = 0; i < 64; ++i) same += largest_difference(slice(near, 2, i, i + 1), slice(far, 2, i, i + 1)) == 0;
    CHECK(same <= 8);
    if (rounds == std::string("1")) CHECK(same == 8);
  }
}

TEST_CASE("reformer: causal rows keep their bits while the table stands, however later tokens change") {
  // A token's bucket and its key hold when it is doubled.
  for (const char* name :
       {"reformer:chunk=16", "reformer:chunk=16,same_bucket=yes,rounds=3", "reformer:chunk=16,wrap=none,unique=yes"}) {
    const Problem p = problem(150, 16, true);
    const Qkv in = arrays(p);
    const Tensor<float> before = run(name, p, in);
    for (const index_t t : {1, 60, 149}) {
      Qkv changed = in;
      const Tensor<float> factor =
          tabulate<float>({1, 1, 150, 1}, [&](index_t, index_t, index_t i, index_t) { return i < t ? 1.0f : 2.0f; });
      changed.q = in.q * factor;
      changed.v = in.v * factor * factor;
      const Tensor<float> after = run(name, p, changed);
      CHECK(largest_difference(slice(before, 2, 0, t), slice(after, 2, 0, t)) == 0);
      CHECK(largest_difference(slice(before, 2, t, 150), slice(after, 2, t, 150)) > 0.1);
    }
  }
}

TEST_CASE("reformer: conforms with other options") {
  for (const char* name : {"reformer:chunk=7,rounds=3,before=1,after=1", "reformer:chunk=16,rounds=1,wrap=none,buckets=6",
                           "reformer:chunk=16,rounds=2,buckets=24,factors=two", "reformer:chunk=32,factors=one,logit_scale=0.25",
                           "reformer:chunk=16,keys=own,after=1", "reformer:chunk=16,same_bucket=yes",
                           "reformer:chunk=16,rounds=3,wrap=none,unique=yes", "reformer:chunk=7,wrap=none,before=15,after=15",
                           "reformer:chunk=7,wrap=none,before=0,after=15,unique=yes",
                           "reformer:chunk=8,rounds=4,after=1,wrap=none,keys=own,same_bucket=yes,unique=yes"}) {
    check_conforms(name);
  }
}

TEST_CASE("reformer: odd bucket counts are refused") {
  CHECK(refusal("reformer:buckets=5", problem(100)).find("odd") != std::string::npos);
  CHECK(refusal("reformer:buckets=6", problem(100)) == "");
}

TEST_CASE("reformer: equal tokens, zero tokens and NaN are survived") {
  const Problem p = problem(200);
  Qkv in = arrays(p);
  in.v = ones<float>(in.v.shape());
  for (const double value : {0.0, 1.0, 1e-30, 1e18}) {
    INFO(value);
    in.q = full<float>(in.q.shape(), static_cast<float>(value));
    check_equal(run("reformer:chunk=16", p, in), in.v);
  }
  in.q = full<float>(in.q.shape(), std::nanf(""));
  run("reformer:chunk=16", p, in);
}

TEST_CASE("reformer: the bidirectional pair count of one round is the definition's") {
  for (const index_t n : {40, 64, 100}) {
    const Problem p = problem(n, 4);
    CHECK(pairs_of_head("reformer:chunk=16,rounds=1", p) == pairs_by_definition("reformer:chunk=16,rounds=1", p));
  }
}
