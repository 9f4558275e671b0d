#include "gated.hpp"

using namespace attn;
using namespace attn::test;

namespace {

// ln g of every token and channel.
void set_constant_gates(Trial& t, double log_gate) {
  for (const char* name : {"gate_in", "gate_out"}) t.parameters.set(name, t.parameters[name] * 0.0f);
  const double logit = -std::log(std::expm1(-16 * log_gate));
  t.parameters.set("gate_b", t.parameters["gate_b"] * 0.0f + static_cast<float>(logit));
}

}  // namespace

TEST_CASE("gla: the fast path is its definition, at every length around a panel") {
  check_around_panels({"gla", "gla:tau=1,half_life=1", "gla:key=complement", "gla:rank=3,half_life=1000"});
}

TEST_CASE("gla: arrays of the input are gates as learned ones are") {
  check_properties("gla:gate=input", {"agreement", "decode", "merge"});
}

TEST_CASE("gla: gates that are alike in all channels are those of retention") {
  const Problem p = square(120, 16, true, 1);
  Trial vectors("gla", p), scalars("retention:decay=input", p);
  set_constant_gates(vectors, -0.05);
  scalars.more.insert_or_assign("log_decay", zeros<float>({1, 1, 120}) - 0.05f);
  CHECK(distance(vectors.run(), scalars.definition()) < 2e-6);
}

TEST_CASE("gla: channels whose gates differ by orders of magnitude fade apart, and panels end where products leave the floats") {
  // Channel c forgets by e^-(2^c) a token: from slow to at once.
  Trial t("gla:tau=1", square(100, 12, true, 1));
  for (const char* name : {"gate_in", "gate_out"}) t.parameters.set(name, t.parameters[name] * 0.0f);
  t.parameters.set("gate_b", tabulate<float>({1, 12}, [](index_t, index_t c) {
                     const auto place = static_cast<double>(c);
                     return c < 6 ? 6 - place : -std::exp2(place - 5);
                   }));
  CHECK(distance(t.run(), t.definition()) < 1e-6);
  CHECK(finite(t.run()));
}

TEST_CASE("gla: one token that closes all channels hides what came before it") {
  for (const index_t at : {1, 16, 37, 79}) {
    Trial t("gla:tau=1,rank=1", square(80, 8, true, 1));
    // Channel 0 of the keys opens the gates by 5, and closes them where it is -1000.
    t.parameters.set("gate_in", tabulate<float>({1, 8, 1}, [](index_t, index_t d, index_t) { return d == 0; }));
    t.parameters.set("gate_out", ones<float>({1, 1, 8}));
    t.parameters.set("gate_b", zeros<float>({1, 8}));
    t.k = tabulate<float>(
        t.k.shape(), [&](index_t b, index_t h, index_t i, index_t d) { return d == 0 ? (i == at ? -1000 : 5) : t.k(b, h, i, d); });
    const auto out = t.run();
    CHECK(distance(out, t.definition()) < 1e-6);
    t.v =
        tabulate<float>(t.v.shape(), [&](index_t b, index_t h, index_t i, index_t d) { return i < at ? -3.0f : t.v(b, h, i, d); });
    INFO("closed at " << at);
    CHECK(distance(slice_from(t.run(), 2, at), slice_from(out, 2, at)) == 0);
  }
}

TEST_CASE("gla: complements of gates of one write nothing") {
  Trial t("gla:key=complement,tau=1", square(50, 8, true, 1));
  for (const char* name : {"gate_in", "gate_out"}) t.parameters.set(name, t.parameters[name] * 0.0f);
  t.parameters.set("gate_b", zeros<float>({1, 8}) + 200.0f);
  const auto out = t.run();
  CHECK(sum(abs(out)).item() == 0);
}

TEST_CASE("gla: 100000 tokens that are all kept are summed exactly") {
  Problem p = square(100000, 1, true, 1);
  Trial t("gla:tau=1", p);
  for (const char* name : {"gate_in", "gate_out"}) t.parameters.set(name, t.parameters[name] * 0.0f);
  t.parameters.set("gate_b", zeros<float>({1, 1}) + 200.0f);
  t.q = ones<float>({1, 1, p.q_len, 1});
  t.k = t.v = t.q;
  const auto out = t.run();
  for (const index_t i : {0, 15, 16, 4096, 99999}) CHECK(out(0, 0, i, 0) == static_cast<float>(i + 1));
}

TEST_CASE("gla: what is not defined is refused in a sentence") {
  CHECK(refusal("gla", square(10)).find("causal") != std::string::npos);
  CHECK(refusal("gla:rank=0", square(10, 64, true)).find("rank=0") != std::string::npos);
}
