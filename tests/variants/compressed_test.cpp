#include "trial.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("compressed: the fast path is its definition") {
  for (const char* options : {"r=4", "r=3,by=mean", "r=1", "r=7", "r=64,by=mean"}) {
    for (const bool causal : {false, true}) {
      for (const index_t n : {1, 2, 3, 63, 64, 65, 300}) {
        Problem p = square(n, 40, causal, 4);
        p.kv_heads = 2;
        p.value_dim = 24;
        p.batch = 2;
        if (n == 65) p.kv_len = 130;
        if (n == 64) p.kv_len = 33;
        Trial t("compressed:" + std::string(options), p);
        if (causal) t.parameters.set("null_k", Trial::random(t.parameters["null_k"].shape(), 3, "null"));
        if (causal) t.parameters.set("null_v", Trial::random(t.parameters["null_v"].shape(), 4, "null"));
        INFO(t.variant->name().text() << " " << to_string(p));
        CHECK(distance(t.run(), t.definition()) < 1e-5);
      }
    }
  }
}

TEST_CASE("compressed: blocks of one token under the identity are full attention") {
  Trial t("compressed:r=1", square(150));
  for (const char* name : {"W_k", "W_v"}) t.parameters.set(name, repeat(unsqueeze(identity<float>(64), 0), 0, 2));
  CHECK(distance(t.run(), Trial("full", square(150)).definition()) < 1e-5);
}

TEST_CASE("compressed: by hand, causal") {
  // Zero queries weigh all they see alike: the null value 10 and the means of whole blocks (1,3), (5,7), and the ragged (9).
  Trial t("compressed:r=2,by=mean", square(5, 1, true, 1));
  t.q = t.q * 0.0f;
  t.v = Tensor<float>({1, 1, 5, 1}, {1, 3, 5, 7, 9});
  t.parameters.set("null_v", full<float>({1, 1, 1}, 10.0f));
  const auto out = t.run();
  const double expected[] = {10, 6, 6, 6, 27.0 / 4};
  for (index_t i = 0; i < 3; ++i) CHECK(static_cast<double>(out(0, 0, i, 0)) == Approx(expected[i]));
  CHECK(static_cast<double>(out(0, 0, 3, 0)) == Approx((10 + 2 + 6) / 3.0));
  CHECK(static_cast<double>(out(0, 0, 4, 0)) == Approx((10 + 2 + 6 + 9) / 4.0));
}

TEST_CASE("compressed: denominators near zero, negative inputs and large norms stay finite") {
  for (const char* name : {"compressed", "compressed:r=3,by=mean"}) check_stays_finite(name);
}

TEST_CASE("compressed: blocks of no tokens are refused with the range, blocks longer than the sequence are one") {
  CHECK(refusal("compressed:r=0", square(8)).find("r=0") != std::string::npos);
  const Trial t("compressed:r=100,by=mean", square(30));
  const auto mean_v = mean(cast<double>(t.v), 2, Keep::yes) + zeros<double>(t.v.shape());
  CHECK(distance(t.run(), mean_v) < 1e-5);
}
