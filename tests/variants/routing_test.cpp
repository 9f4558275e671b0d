#include "attn/kernels/choose/grouping.hpp"
#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("routing: one cluster of everybody is full attention on normalised inputs") {
  for (const index_t n : {1, 50}) {
    for (const bool causal : {false, true}) {
      const Problem p = problem(n, 16, causal);
      const Qkv in = arrays(p);
      Qkv normal = in;
      normal.q = layer_norm(in.q, 1e-6);
      normal.k = causal ? normal.q : layer_norm(in.k, 1e-6);
      check_equal(run("routing:clusters=1", p, in), run("full", p, normal), 1e-5);
      check_equal(run("routing:clusters=3,window=1000", p, in), run("full", p, normal), 1e-5);
    }
  }
}

TEST_CASE("routing: tokens that no centroid takes give zeros") {
  const Problem p = problem(50, 16, false, 1);
  const Tensor<float> out = run("routing:clusters=1,window=8", p, arrays(p));
  index_t silent = 0;
  for (index_t i = 0; i < 50; ++i) silent += out(0, 0, i, 0) == 0;
  CHECK(silent == 42);
}

TEST_CASE("routing: centroids that have followed the keys bring it near to full attention where keys have clusters") {
  // Eight directions; queries and keys of one kind share theirs, values are the kind's.
  const index_t n = 256, kinds = 8, d = 32;
  const Problem p = problem(n, d, false, 1);
  Qkv in = arrays(p, 0.3);
  const Tensor<float> centres = normal({kinds, d}, "centres", 3);
  const Indices kind = Indices::from({1, 1, n}, [&](index_t, index_t, index_t i) { return i % kinds; });
  in.q = in.q + gather_rows(reshape(centres, {1, 1, kinds, d}), kind);
  in.k = in.k + gather_rows(reshape(centres, {1, 1, kinds, d}), kind);
  in.v = in.v + gather_rows(reshape(normal({kinds, d}, "values", 3), {1, 1, kinds, d}), kind);
  Qkv normalised = in;
  normalised.q = layer_norm(in.q, 1e-6);
  normalised.k = layer_norm(in.k, 1e-6);
  const Tensor<float> exact = run("full", p, normalised);

  const auto v = variant("routing:clusters=8,window=32,logit_scale=1");
  ParameterSet<float> parameters = make_parameters(v->parameters(p), 3);
  const double untrained = distance(run(*v, p, in, {.parameters = &parameters}), exact);
  // Each begins at a key of its own kind, then follows.
  std::vector<float> centroid(normalised.k.data(), normalised.k.data() + kinds * d), sum = centroid, count(8, 0.0f);
  for (int step = 0; step < 5; ++step)
    kernels::update_centroids({kinds, d, centroid.data(), sum.data(), count.data()}, n, {normalised.k.data(), d}, 0.5);
  parameters.set("centroids", Tensor<float>({1, kinds, d}, centroid));
  const double trained = distance(run(*v, p, in, {.parameters = &parameters}), exact);
  CHECK(trained < 0.1);
  CHECK(untrained > 3 * trained);
}

TEST_CASE("routing: keys of their own have no causal form") {
  CHECK(refusal("routing:sharing=no", problem(50, 16, true)).find("sharing") != std::string::npos);
  CHECK(refusal("routing:sharing=no", problem(50)) == "");
}

TEST_CASE("routing: conforms with other options") {
  for (const char* name : {"routing:clusters=5,window=9", "routing:clusters=100,window=3", "routing:sharing=yes,logit_scale=1"})
    check_conforms(name);
}

TEST_CASE("routing: equal tokens, zero tokens and NaN are survived") {
  const Problem p = problem(100);
  Qkv in = arrays(p);
  for (const double value : {0.0, 1.0}) {
    in.q = in.k = full<float>(in.q.shape(), static_cast<float>(value));
    CHECK(finite(run("routing", p, in)));
  }
  in.q = full<float>(in.q.shape(), std::nanf(""));
  run("routing", p, in);
}
