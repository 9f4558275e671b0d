#include "gated.hpp"

using namespace attn;
using namespace attn::test;

namespace {

void set_gates(Trial& t, float log_decay, float beta) {
  const Shape shape = {t.p.batch, t.p.kv_heads, t.p.kv_len};
  t.more.insert_or_assign("log_decay", zeros<float>(shape) + log_decay);
  t.more.insert_or_assign("beta", zeros<float>(shape) + beta);
}

// Keys and queries are rows of the identity, row(i) for token i.
template <class F>
void set_unit_rows(Trial& t, F row) {
  t.k = tabulate<float>(t.k.shape(), [&](index_t, index_t, index_t i, index_t d) { return row(i) == d; });
  t.q = t.k;
}

}  // namespace

TEST_CASE("gated_delta: the fast path is its definition, at every length around a panel") {
  check_around_panels({"gated_delta", "gated_delta:gate=no", "gated_delta:negative=yes,half_life=50", "gated_delta:gate=input"});
}

TEST_CASE("gated_delta: unlike keys recall their values, and a key that comes again its last one") {
  Trial t("gated_delta:gate=input", square(40, 24, true, 1));
  set_gates(t, 0, 1);
  set_unit_rows(t, [](index_t i) { return i % 24; });
  // The norm has 1e-6 beside |k|^2, so a value is recalled to 1e-6.
  CHECK(distance(t.run() * static_cast<float>(std::sqrt(24.0)), t.v) < 3e-6);
}

TEST_CASE("gated_delta: beta 0 lets the state fade and writes nothing") {
  Trial t("gated_delta:gate=input", square(60, 8, true, 1));
  set_gates(t, -0.1f, 0);
  // The first token is written, with an empty state before it.
  t.more.insert_or_assign("beta", tabulate<float>({1, 1, 60}, [](index_t, index_t, index_t i) { return i == 0; }));
  set_unit_rows(t, [](index_t) { return 3; });
  const auto out = t.run();
  for (index_t i = 0; i < 60; ++i)
    CHECK(static_cast<double>(out(0, 0, i, 5)) ==
          Approx(std::exp(-0.1 * static_cast<double>(i)) * static_cast<double>(t.v(0, 0, 0, 5)) / std::sqrt(8.0)).epsilon(1e-5));
}

TEST_CASE("gated_delta: two reflections of a state at one key leave it as it was") {
  Trial t("gated_delta:gate=input,negative=yes", square(20, 16, true, 1));
  set_gates(t, 0, 1);
  set_unit_rows(t, [](index_t i) { return i < 10 ? i : 4; });
  // Tokens 10 and 11 reflect the state at key 4 and write nothing.
  t.more.insert_or_assign("beta", tabulate<float>({1, 1, 20}, [](index_t, index_t, index_t i) {
                            return i < 10 ? 1 : i < 12 ? 2 : 0;
                          }));
  t.v = tabulate<float>(t.v.shape(), [&](index_t b, index_t h, index_t i, index_t d) { return i < 10 ? t.v(b, h, i, d) : 0; });
  const auto out = t.run();
  for (index_t d = 0; d < 16; ++d) {
    const double value = static_cast<double>(t.v(0, 0, 4, d)) / 4;
    CHECK(static_cast<double>(out(0, 0, 10, d)) == Approx(-value).epsilon(1e-5).margin(1e-6));
    CHECK(static_cast<double>(out(0, 0, 11, d)) == Approx(value).epsilon(1e-5).margin(1e-6));
  }
}

TEST_CASE("gated_delta: keys that are all equal, or nearly, lose no digits that the token form keeps, at beta 1 and 2") {
  for (const float beta : {1.0f, 2.0f}) {
    for (const float apart : {0.0f, 1e-3f, 0.3f}) {
      Trial t("gated_delta:gate=input,negative=yes", square(500, 64, true, 1));
      set_gates(t, 0, beta);
      t.k = t.k * apart + 1.0f;
      INFO("beta " << beta << ", apart by " << apart);
      // Where a reflection follows the other, the rounding of |k| adds up in the token form too.
      const auto truth = t.definition();
      CHECK(distance(t.run(), truth) < 1e-6 + 2 * distance(t.definition<float>(), truth));
    }
  }
}

TEST_CASE("gated_delta: a closed gate, wherever in a panel, forgets what came before it") {
  for (const float closed : {-500.0f, -1e30f}) {
    for (const index_t at : {1, 16, 37, 79}) {
      const Problem p = square(80, 16, true, 1);
      Trial t("gated_delta:gate=input", p), without("gated_delta:gate=input", p);
      const auto gates = [&](float gate) {
        return tabulate<float>({1, 1, 80}, [&](index_t, index_t, index_t i) { return i == at ? gate : -0.01f; });
      };
      t.more.insert_or_assign("log_decay", gates(closed));
      without.more.insert_or_assign("log_decay", gates(-0.01f));
      without.more.insert_or_assign("beta", tabulate<float>({1, 1, 80}, [&](index_t, index_t, index_t i) {
                                      return i < at ? 0 : t.more.at("beta")(0, 0, i);
                                    }));
      INFO("ln g = " << closed << " at " << at);
      CHECK(distance(slice_from(t.run(), 2, at), slice_from(without.run(), 2, at)) < 1e-6);
      CHECK(distance(t.run(), t.definition()) < 1e-6);
    }
  }
}

TEST_CASE("gated_delta: keys and queries of zero, and 100000 tokens that are all kept, stay numbers") {
  check_stays_finite("gated_delta");
  Problem p = square(100000, 4, true, 1);
  Trial t("gated_delta:gate=input,negative=yes", p);
  set_gates(t, 0, 2);
  const auto out = t.run();
  CHECK(finite(out));
}

TEST_CASE("gated_delta: what is not defined is refused in a sentence") {
  CHECK(refusal("gated_delta", square(10)).find("causal") != std::string::npos);
  CHECK(refusal("gated_delta:half_life=-1", square(10, 64, true)).find("half_life=-1") != std::string::npos);
}
