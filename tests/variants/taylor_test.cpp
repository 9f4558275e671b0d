#include "attn/kernels/linear/taylor.hpp"

#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("taylor: conforms with fewer numbers, and with all") {
  for (const char* name : {"taylor:dim=5", "taylor:dim=64"}) check_conforms(name);
}

TEST_CASE("taylor: products of its features are the series") {
  for (const index_t n : {1, 2, 7, 16, 17, 40}) {
    const Tensor<float> x = normal({2, n}, "features");
    const index_t features = kernels::taylor_features(n);
    std::vector<float> to(static_cast<std::size_t>(2 * features));
    kernels::taylor(2, n, {x.data(), n}, {to.data(), features});
    double t = 0, product = 0;
    for (index_t i = 0; i < n; ++i)
      t += static_cast<double>(x(0, i)) * static_cast<double>(x(1, i)) / std::sqrt(static_cast<double>(n));
    for (index_t f = 0; f < features; ++f)
      product +=
          static_cast<double>(to[static_cast<std::size_t>(f)]) * static_cast<double>(to[static_cast<std::size_t>(features + f)]);
    CHECK(product == Approx(1 + t + t * t / 2).margin(1e-6));
  }
  CHECK(kernels::taylor_features(16) == 153);
}

TEST_CASE("taylor: of small logits it is softmax attention up to their third power") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(80, 16, causal);
    const Qkv in = arrays(p, 0.1);
    CHECK(largest_difference(run("taylor", p, in), run("full", p, in)) < 1e-4);
  }
}

TEST_CASE("taylor: queries of zeros see the mean of the visible values") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(50, 16, causal);
    Qkv in = arrays(p);
    in.q = zeros<float>(in.q.shape());
    check_equal(run("taylor", p, in), run("mean_v", p, in), 1e-5);
  }
}

TEST_CASE("taylor: by hand") {
  const Problem p = problem(2, 1, false, 1);
  Qkv in = arrays(p);
  in.q = Tensor<float>({1, 1, 2, 1}, {1, -1});
  in.k = Tensor<float>({1, 1, 2, 1}, {1, 2});
  in.v = Tensor<float>({1, 1, 2, 1}, {1, 2});
  const auto out = run("taylor", p, in);
  CHECK(out(0, 0, 0, 0) == Approx((2.5 + 2 * 5) / 7.5));  // 1 + 1 + 1/2, 1 + 2 + 2
  CHECK(out(0, 0, 1, 0) == Approx((0.5 + 2 * 1) / 1.5));
}

TEST_CASE("taylor: the state does not grow with the sequence") {
  Problem p = problem(100, 64, true, 2);
  const index_t bytes = variant("taylor")->state_bytes(p);
  CHECK(bytes == 2 * 153 * (64 + 1) * 4);
  p.q_len = p.kv_len = 100000;
  CHECK(variant("taylor")->state_bytes(p) == bytes);
}

TEST_CASE("taylor: stays finite") { check_stays_finite("taylor"); }
