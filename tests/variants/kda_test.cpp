#include "gated.hpp"

using namespace attn;
using namespace attn::test;

TEST_CASE("kda: the fast path is its definition, at every length around a panel") {
  check_around_panels({"kda", "kda:bound=five", "kda:rank=3,half_life=100", "kda:bound=five,half_life=10"});
}

TEST_CASE("kda: arrays of the input are gates as learned ones are") { check_properties("kda:gate=input", {"agreement", "decode"}); }

TEST_CASE("kda: gates that are alike in all channels are those of gated_delta") {
  const Problem p = square(120, 16, true, 2);
  Trial vectors("kda", p), scalars("gated_delta", p);
  for (const char* name : {"gate_in", "gate_out"}) vectors.parameters.set(name, vectors.parameters[name] * 0.0f);
  scalars.parameters.set("gate_w", zeros<float>({2, 16}));
  for (const char* name : {"a_log", "beta_w", "beta_b"}) vectors.parameters.set(name, scalars.parameters[name]);
  vectors.parameters.set("gate_b", zeros<float>({2, 16}) + unsqueeze(scalars.parameters["gate_b"], 1));
  CHECK(distance(vectors.run(), scalars.definition()) < 1e-6);
}

TEST_CASE("kda: gates of e^-5 a token and far faster ones keep their digits") {
  for (const float logit : {5.0f, 40.0f, 500.0f}) {
    Trial t("kda", square(100, 16, true, 1));
    t.parameters.set("a_log", zeros<float>({1}));
    for (const char* name : {"gate_in", "gate_out"}) t.parameters.set(name, t.parameters[name] * 0.0f);
    // Every third channel forgets so fast, the others hardly.
    t.parameters.set("gate_b", tabulate<float>({1, 16}, [&](index_t, index_t c) { return c % 3 == 0 ? logit : -4.0f; }));
    INFO("ln g = -" << logit);
    CHECK(distance(t.run(), t.definition()) < 1e-6);
  }
}

TEST_CASE("kda: a key that comes again has its last value, when nothing fades and beta is 1") {
  Trial t("kda", square(40, 24, true, 1));
  for (const char* name : {"gate_in", "gate_out", "beta_w"}) t.parameters.set(name, t.parameters[name] * 0.0f);
  t.parameters.set("gate_b", zeros<float>({1, 24}) - 200.0f);
  t.parameters.set("beta_b", Tensor<float>({1}, {200}));
  t.k = tabulate<float>(t.k.shape(), [](index_t, index_t, index_t i, index_t d) { return i % 24 == d; });
  t.q = t.k;
  CHECK(distance(t.run() * static_cast<float>(std::sqrt(24.0)), t.v) < 3e-6);
}

TEST_CASE("kda: equal keys and keys of zero stay numbers") {
  check_stays_finite("kda");
  Trial t("kda:half_life=10000", square(500, 64, true, 1));
  t.k = t.k * 0.001f + 1.0f;
  CHECK(distance(t.run(), t.definition()) < 3e-6);
}

TEST_CASE("kda: what is not defined is refused in a sentence") {
  CHECK(refusal("kda", square(10)).find("causal") != std::string::npos);
}
