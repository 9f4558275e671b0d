#include "run.hpp"

using namespace attn;
using namespace attn::test;

namespace {

Tensor<float> softmax_table(const Tensor<float>& logits, bool causal) {
  return softmax(logits, mask({logits.extent(1), logits.extent(2)}, [&](index_t i, index_t j) { return !causal || j <= i; }));
}

}  // namespace

TEST_CASE("synth_random: other options conform too") {
  for (const char* name : {"synth_random:cached=no", "synth_random:cached=no,max_len=600"}) check_conforms(name);
}

TEST_CASE("synth_random: the cached table is the softmax that the other one takes") {
  for (const bool causal : {false, true}) {
    Problem p = problem(211, 24, causal, 3);
    p.batch = 2;
    const Qkv in = arrays(p);
    const auto logits = normal({3, 211, 211}, "logits");
    ParameterSet<float> trained, frozen;
    trained.set("R", logits);
    frozen.set("P", softmax_table(logits, causal));
    check_equal(run("synth_random:cached=no", p, in, {.parameters = &trained}),
                run("synth_random", p, in, {.parameters = &frozen}));
  }
}

TEST_CASE("synth_random: the frozen table's rows are weights") {
  for (const bool causal : {false, true}) {
    const auto p = problem(70, 16, causal);
    const auto table = make_parameters(variant("synth_random")->parameters(p), 1)["P"];
    check_equal(sum(table, -1), ones<float>({2, 70}));
    if (causal) CHECK(table(1, 10, 11) == 0);
  }
}

TEST_CASE("synth_random: equal logits give the mean of V, whatever x is") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(150, 16, causal);
    const Qkv in = arrays(p);
    ParameterSet<float> flat;
    flat.set("R", zeros<float>({2, 150, 150}));
    check_equal(run("synth_random:cached=no", p, in, {.parameters = &flat}), run("mean_v", p, in));
  }
}

TEST_CASE("synth_random: one large logit picks one value") {
  const Problem p = problem(64, 16, false, 1);
  const Qkv in = arrays(p);
  ParameterSet<float> one;
  one.set("R", tabulate<float>({1, 64, 64}, [](index_t, index_t i, index_t j) { return j == (i + 1) % 64 ? 1e4f : 0.0f; }));
  const auto out = run("synth_random:cached=no", p, in, {.parameters = &one});
  CHECK(out(0, 0, 3, 5) == in.v(0, 0, 4, 5));
  CHECK(out(0, 0, 63, 0) == in.v(0, 0, 0, 0));
}

TEST_CASE("synth_random: a sequence longer than the table is refused with its length") {
  const Status status = variant("synth_random:max_len=100")->supports(problem(101));
  REQUIRE(!status);
  CHECK(status.reason().find("max_len=100") != std::string::npos);
  CHECK(status.reason().find("101") != std::string::npos);
  CHECK(variant("synth_random:max_len=100")->supports(problem(100)));
}

TEST_CASE("synth_random: flops are the nonzero weights times V") {
  for (const bool causal : {false, true}) {
    const Problem p = problem(37, 8, causal);
    CHECK(variant("synth_random")->cost(p).flops == 2 * 2 * 8 * pairs_by_definition("synth_random", p));
  }
}

TEST_CASE("synth_random: a causal table that weighs later keys is refused, drawn ones are not") {
  const auto v = variant("synth_random");
  const Parameters causal = v->parameters(problem(9, 16, true)), both = v->parameters(problem(9));
  CHECK(causal[0].check(make_parameters(causal, 1)["P"].values()));
  const Status status = causal[0].check(make_parameters(both, 1)["P"].values());
  REQUIRE(!status);
  CHECK(status.reason().find("element 1 is the weight of key 1 for row 0") == 0);
  // The second head's last row that is cut.
  const Tensor<float> drawn = make_parameters(causal, 1)["P"];
  std::vector<float> table(drawn.values().begin(), drawn.values().end());
  table[81 + 7 * 9 + 8] = 1e-30f;
  CHECK(!causal[0].check(table));
  CHECK(both[0].check == nullptr);
}
