#include "trial.hpp"

using namespace attn;
using namespace attn::test;

namespace {

constexpr double rounding = 1e-6;

// ln g_t of every token and head, by f(t).
template <class F>
void set_log_decay(Trial& t, F f) {
  t.more.insert_or_assign(
      "log_decay", tabulate<float>({t.p.batch, t.p.kv_heads, t.p.kv_len}, [&](index_t, index_t, index_t i) { return f(i); }));
}

// sum_{first(i)<=j<=i} (q_i.k_j) v_j / sqrt(D)
template <class F>
Tensor<double> unnormalised(const Trial& t, F first) {
  const Tensor<double> products = matmul_transposed(cast<double>(t.q), cast<double>(t.k)) * t.p.scale();
  const Mask seen = mask({t.p.q_len, t.p.kv_len}, [&](index_t i, index_t j) { return j <= i && j >= first(i); });
  return matmul(where(seen, products, 0.0), cast<double>(t.v));
}

}  // namespace

TEST_CASE("retention: the fast path is its definition, at every length around a panel") {
  for (const char* name : {"retention", "retention:decay=slopes", "retention:decay=learned,half_life=5", "retention:decay=input"}) {
    for (const index_t n : {1, 2, 15, 16, 17, 31, 33, 64, 300}) {
      const Trial t(name, square(n, n == 33 ? 7 : 40, true, 3));
      INFO(name << " N=" << n);
      CHECK(distance(t.run(), t.definition()) < rounding);
    }
  }
}

TEST_CASE("retention: queries at the end of longer keys, before any key, and heads that share keys") {
  for (const auto& [n, m, kv_heads] : {std::tuple{37, 50, 4}, {1, 30, 2}, {20, 257, 1}, {60, 41, 2}}) {
    Problem p = square(n, 24, true, 4);
    p.kv_len = m;
    p.kv_heads = kv_heads;
    p.value_dim = 33;
    for (const char* name : {"retention", "retention:decay=learned"}) {
      const Trial t(name, p);
      INFO(name << " N=" << n << " M=" << m);
      CHECK(distance(t.run(), t.definition()) < rounding);
      CHECK(distance(t.run(4), t.run()) == 0);
    }
  }
}

TEST_CASE("retention: one value fades by 31/32 a token in the first head") {
  Trial t("retention", square(40, 1, true, 1));
  t.q = ones<float>({1, 1, 40, 1});
  t.k = t.q;
  t.v = tabulate<float>({1, 1, 40, 1}, [](index_t, index_t, index_t i, index_t) { return i == 0; });
  const auto out = t.run();
  for (index_t i = 0; i < 40; ++i) CHECK(static_cast<double>(out(0, 0, i, 0)) == Approx(std::pow(31.0 / 32, i)).epsilon(1e-6));
}

TEST_CASE("retention: gates of one are linear attention without denominators, gates of zero leave the own token") {
  Trial t("retention:decay=input", square(150, 16, true));
  set_log_decay(t, [](index_t) { return 0.0f; });
  CHECK(distance(t.run(), unnormalised(t, [](index_t) { return 0; })) < rounding);
  set_log_decay(t, [](index_t) { return -1e30f; });
  CHECK(distance(t.run(), unnormalised(t, [](index_t i) { return i; })) < rounding);
}

TEST_CASE("retention: a gate that is all but closed, wherever in a panel, hides what came before it and nothing else") {
  for (const float closed : {-500.0f, -1e30f, -90.0f}) {
    for (const index_t at : {0, 1, 37, 48, 63, 149}) {
      Trial t("retention:decay=input", square(150, 16, true));
      set_log_decay(t, [&](index_t i) { return i == at ? closed : 0.0f; });
      INFO("ln g = " << closed << " at " << at);
      CHECK(distance(t.run(), unnormalised(t, [&](index_t i) { return i >= at ? at : 0; })) < rounding);
      CHECK(distance(t.run(), t.definition()) < rounding);
    }
  }
}

TEST_CASE("retention: a constant gate gives the weights of linear biases without their exponential") {
  Trial t("retention:decay=slopes", square(100, 8, true, 4));
  const Tensor<double> products = matmul_transposed(cast<double>(t.q), cast<double>(t.k)) * t.p.scale();
  const Tensor<double> bias = tabulate<double>({1, 4, 100, 100}, [](index_t, index_t h, index_t i, index_t j) {
    return j <= i ? std::exp(-std::exp2(-2.0 * static_cast<double>(h + 1)) * static_cast<double>(i - j)) : 0.0;
  });
  CHECK(distance(t.run(), matmul(products * bias, cast<double>(t.v))) < rounding);
}

TEST_CASE("retention: a learned gate without weights is a fixed one") {
  const Problem p = square(90, 16, true);
  Trial learned("retention:decay=learned", p);
  const Trial fixed("retention", p);
  learned.parameters.set("gate_w", zeros<float>({2, 16}));
  learned.parameters.set("gate_b", Tensor<float>({2}, {std::log(31.0f), std::log(63.0f)}));
  CHECK(distance(learned.run(), fixed.definition()) < rounding);
}

TEST_CASE("retention: the state of 100000 tokens that are all kept grows exactly, and one that fades slowly keeps its digits") {
  Problem p = square(100000, 1, true, 1);
  Trial t("retention:decay=input", p);
  t.q = ones<float>({1, 1, p.q_len, 1});
  t.k = t.v = t.q;
  set_log_decay(t, [](index_t) { return 0.0f; });
  const auto sums = t.run();
  for (const index_t i : {0, 15, 16, 4096, 99999}) CHECK(sums(0, 0, i, 0) == static_cast<float>(i + 1));
  set_log_decay(t, [](index_t) { return -1e-6f; });
  const auto faded = t.run();
  const double log_gate = static_cast<double>(-1e-6f);
  CHECK(static_cast<double>(faded(0, 0, 99999, 0)) == Approx(std::expm1(1e5 * log_gate) / std::expm1(log_gate)).epsilon(3e-6));
}

TEST_CASE("retention: channels of the values are alike, and twice the values are twice the output") {
  Trial t("retention", square(70, 16, true));
  const auto out = t.run();
  t.v = flip(t.v, -1) * 2.0f;
  CHECK(distance(t.run(), flip(out, -1) * 2.0f) < 1e-7);
}

TEST_CASE("retention: what is not defined is refused in a sentence") {
  CHECK(refusal("retention", square(10)).find("causal") != std::string::npos);
  CHECK(refusal("retention:half_life=0", square(10, 64, true)).find("half_life=0") != std::string::npos);
}

TEST_CASE("retention: extreme queries and keys stay finite") { check_stays_finite("retention"); }
