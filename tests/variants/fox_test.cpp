#include <cmath>

#include "run.hpp"
#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

// Its own gates as ln f of [B,H,M].
template <class F>
Trial with_gates(const std::string& name, const Problem& p, F log_gate) {
  Trial t(name, p);
  t.more["log_decay"] = tabulate<float>({p.batch, p.heads, p.kv_len}, log_gate);
  return t;
}

}  // namespace

TEST_CASE("fox: conforms, unpruned and pruned") { check_conforms("fox:gate=input,prune=8,half_life=4"); }

TEST_CASE("fox: gates of one are full attention") {
  const Problem p = square(150, 32, true);
  const Trial t = with_gates("fox:gate=input", p, [](index_t, index_t, index_t) { return 0; });
  CHECK(distance(t.run(), Trial("full", p).run()) < 1e-6);
}

TEST_CASE("fox: equal gates are linear biases") {
  const Problem p = square(200, 32, true, 4);
  const Trial t =
      with_gates("fox:gate=input", p, [](index_t, index_t h, index_t) { return -std::exp2(-2.0 * static_cast<double>(h + 1)); });
  CHECK(distance(t.run(), Trial("alibi", p).run()) < 1e-6);
}

TEST_CASE("fox: what is before a gate of next to nothing is forgotten") {
  const Problem p = square(100, 16, true);
  const auto gate = [](float at) { return [=](index_t, index_t, index_t t) { return t == 60 ? at : -0.01f; }; };
  for (const float at : {-200.0f, -500.0f, -1e30f}) {
    Trial t = with_gates("fox:gate=input", p, gate(at));
    const Tensor<float> before = t.run();
    CHECK(distance(before, t.definition()) < 2e-5);
    // Rows from the gate on see keys from the gate on only.
    t.v = concat<float>({slice(t.v, 2, 0, 60) * -3.0f, slice(t.v, 2, 60, 100)}, 2);
    CHECK(distance(slice(t.run(), 2, 60, 100), slice(before, 2, 60, 100)) == 0);
  }
}

TEST_CASE("fox: the declared work of pruning is what drawn gates leave, and grows with N alone") {
  for (const char* name : {"fox:gate=input,prune=4,half_life=16", "fox:prune=4,half_life=16"}) {
    INFO(name);
    const index_t n = 1500, heads = 8;
    const Trial t(name, square(n, 32, true, heads));
    const bool given = t.more.count("log_decay") > 0;
    const auto log_gate = [&](index_t h, index_t i) {
      if (given) return static_cast<double>(t.more.at("log_decay")(0, h, i));
      double logit = static_cast<double>(t.parameters["gate_b"](h));
      for (index_t c = 0; c < 32; ++c)
        logit += static_cast<double>(t.parameters["gate_w"](h, c)) * static_cast<double>(t.k(0, h, i, c));
      return -std::log1p(std::exp(-logit));
    };
    double pairs = 0;
    for (index_t h = 0; h < heads; ++h) {
      std::vector<double> sums;
      double sum = 0;
      for (index_t i = 0, first = 0; i < n; ++i) {
        sums.push_back(sum += log_gate(h, i));
        while (sums[static_cast<std::size_t>(first)] - sum > 4) ++first;
        pairs += static_cast<double>(i - first + 1);
      }
    }
    CHECK(t.variant->cost(t.p).exps == Approx(pairs).epsilon(0.15));  // a softplus is below e^z: 7 % more pairs
    CHECK(t.variant->info().time_exponent == 1);
    CHECK(t.variant->cost(square(20 * n, 32, true, heads)).flops == Approx(20 * t.variant->cost(t.p).flops).epsilon(0.05));
  }
  CHECK(configure("fox")->info().time_exponent == 2);
  CHECK(configure("fox")->cost(square(100, 32, true, 1)).exps == 5050);
  CHECK(configure("fox:prune=1e6")->cost(square(100, 32, true, 1)).exps == 5050);
}

TEST_CASE("fox: a row of strong gates sees itself alone, and loses no digit of it") {
  const Problem p = square(130, 16, true);
  const Trial t = with_gates("fox:gate=input", p, [](index_t, index_t, index_t) { return -1e30f; });
  CHECK(distance(t.run(), t.v) < 1e-6);
}

TEST_CASE("fox: gates hold their digits over a long sequence") {
  Problem p = square(4000, 16, true, 1);
  for (const char* name : {"fox:half_life=1", "fox:half_life=64", "fox:half_life=4096"}) {
    const Trial t(name, p);
    INFO(name);
    CHECK(distance(t.run(), t.definition()) < 2e-6);
  }
}

TEST_CASE("fox: pruned by more than logits can make up for, nothing is lost") {
  const Problem p = square(600, 32, true);
  const Trial whole("fox:half_life=4", p), pruned("fox:half_life=4,prune=60", p);
  CHECK(distance(pruned.run(), whole.run()) < 1e-6);
  // Half a weight a token, and a reach of three tokens.
  Trial t = with_gates("fox:gate=input,prune=2.1", p, [](index_t, index_t, index_t) { return std::log(0.5f); });
  CHECK(distance(t.run(), Trial("local:left=3,right=0", p).run()) > 1e-3);
  t.q = t.q * 0.0f;
  const Tensor<float> out = t.run();
  const auto value = [&](index_t j) { return static_cast<double>(t.v(0, 1, j, 5)); };
  CHECK(static_cast<double>(out(0, 1, 300, 5)) ==
        Approx((value(300) + value(299) / 2 + value(298) / 4 + value(297) / 8) / 1.875).epsilon(1e-5));
}

TEST_CASE("fox: queries at the end of longer keys, and heads that share keys, have gates of their own") {
  Problem p = square(70, 24, true, 4);
  p.kv_len = 131;
  p.kv_heads = 2;
  for (const char* name : {"fox", "fox:prune=3,half_life=8", "fox:gate=input"}) {
    const Trial t(name, p);
    INFO(name);
    CHECK(distance(t.run(2), t.definition()) < 1e-6);
  }
}

TEST_CASE("fox: is causal, decodes with gates that it can make again, and takes no negative prune") {
  CHECK(refusal("fox", square(50)).find("causal problems only") != std::string::npos);
  Problem step = square(50, 16, true);
  step.q_len = 1;
  step.pass = Pass::decode;
  CHECK(refusal("fox:gate=input", step).find("not their gates") != std::string::npos);
  CHECK(refusal("fox", step) == "");
  CHECK(refusal("fox:prune=-1", square(50, 16, true)).find("prune=-1 is outside") != std::string::npos);
}
