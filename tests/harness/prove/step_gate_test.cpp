#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "attn/prove/gate.hpp"
#include "attn/prove/trial.hpp"
#include "attn/variant/decode.hpp"
#include "attn/variant/variant.hpp"
#include "catch.hpp"

namespace attn {

namespace {

// out_i = mean of the values that i sees: row by row, from a state of tokens.
struct MeanOfPast {
  static VariantInfo info() { return {.title = "test", .formula = "mean", .cross = true}; }
  static Cost cost(const Problem&, const NoOptions&) { return {}; }
  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    const Tensor<T> seen = where(allowed_pairs(p, in, every_key), Tensor<T>(T{1}), T{0});
    return matmul(seen / sum(seen, -1, Keep::yes), in.v);
  }
  MeanOfPast(const Problem& p, const NoOptions&, WorkspacePlan&) : p_(p) {}
  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace&) const {
    for (index_t i = 0; i < p_.q_len; ++i)
      for (index_t d = 0; d < p_.value_dim; ++d) {
        double total = 0;
        for (index_t j = 0; j <= p_.query_position(i); ++j) total += static_cast<double>(a.v(0, 0, j, d));
        a.out(0, 0, i, d) = static_cast<float>(total / static_cast<double>(p_.query_position(i) + 1));
      }
  }

 private:
  Problem p_;
};

// out_i = sum of x up to i, folded into a state; the definition knows no row alone. A wrong one adds `error` to what it takes up.
template <int error>
struct SumOfPast {
  static VariantInfo info() { return {.title = "test", .formula = "sum", .reads = Reads::x, .cross = false, .row_wise = false}; }
  static Cost cost(const Problem&, const NoOptions&) { return {}; }
  static StateSpec state(const Problem& p, const NoOptions&) { return {.tensors = {{.name = "sum", .extents = {p.head_dim}}}}; }
  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return matmul(where(allowed_pairs(p, in, every_key), Tensor<T>(T{1}), T{0}), in.x());
  }
  SumOfPast(const Problem& p, const NoOptions&, WorkspacePlan&) : p_(p) {}
  void run(const FloatArrays&, const ParameterSet<float>&, Workspace&) const {}
  void absorb(const FloatArrays& tokens, const ParameterSet<float>&, const State& state, Workspace&) const {
    const auto to = state["sum"].f32_out<2>();
    for (index_t i = 0; i < tokens.x().extent(2); ++i)
      for (index_t d = 0; d < p_.head_dim; ++d) to(0, d) += tokens.x()(0, 0, i, d) + static_cast<float>(error);
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>&, const State& state, Workspace&) const {
    for (index_t d = 0; d < p_.head_dim; ++d) queries.out(0, 0, 0, d) = state["sum"].f32<2>()(0, d);
  }

 private:
  Problem p_;
};

template <class Page>
std::unique_ptr<Variant> made() {
  Registry registry;
  registry.add(std::make_unique<erase::TypeOf<Page>>("made", "test"));
  auto variant = registry.configure("made");
  REQUIRE(variant);
  return *std::move(variant);
}

Problem step_of(index_t context, index_t step) {
  return {.heads = 1,
          .kv_heads = 1,
          .q_len = step,
          .kv_len = context,
          .head_dim = 3,
          .value_dim = 3,
          .causal = true,
          .pass = Pass::decode};
}

// The gate's verdict on a decode, whose output has something added to its last element.
template <class Page>
GateResult gate_of(index_t context, index_t step, float error = 0) {
  const auto variant = made<Page>();
  const Problem p = step_of(context, step);
  REQUIRE(variant->supports(p));
  const trial::Case c(whole_sequence(p));
  const Arena arena(2);
  Planned planned(*variant, planned_step(*variant, p), 2);
  planned.equip({});
  State state(variant->state(planned_step(*variant, p)), 1);
  const index_t before = context - step;
  arena.execute([&] {
    take_up(planned, tokens_of(c.arrays(), 0, before), planned.parameters(), state);
    take_step(planned, tokens_of(c.arrays(), before, step), planned.parameters(), state);
  });
  const View<float, 4> out = c.arrays().out.part(2, before, step).f32_out();
  out(0, 0, step - 1, 2) += error;
  return check_step_against_definition(*variant, p, c.arrays(), planned.parameters(), 1, out, arena);
}

}  // namespace

TEST_CASE("a step is held against rows of the causal definition, at the positions where it stands") {
  for (const auto& [context, step] : {std::pair{1, 1}, {9, 2}, {9, 9}, {3000, 1}, {3000, 64}}) {
    INFO(context << " " << step);
    CHECK(passed(gate_of<MeanOfPast>(context, step)));
    CHECK(gate_of<MeanOfPast>(context, step).scope == "whole");
    CHECK_FALSE(passed(gate_of<MeanOfPast>(context, step, 0.01f)));
    CHECK_FALSE(passed(gate_of<MeanOfPast>(context, step, std::numeric_limits<float>::quiet_NaN())));
  }
}

TEST_CASE("of a long step against a long context some rows are looked at, the last one among them") {
  CHECK(gate_of<MeanOfPast>(3000, 100).scope == "rows");
  CHECK(passed(gate_of<MeanOfPast>(3000, 100)));
  CHECK_FALSE(passed(gate_of<MeanOfPast>(3000, 100, 0.01f)));
}

TEST_CASE("what knows no row alone is evaluated as a whole, and beyond some length its twin is") {
  for (const auto& [context, step] : {std::pair{1, 1}, {40, 3}, {1024, 1}}) {
    INFO(context << " " << step);
    CHECK(gate_of<SumOfPast<0>>(context, step).scope == "whole");
    CHECK(passed(gate_of<SumOfPast<0>>(context, step)));
    CHECK_FALSE(passed(gate_of<SumOfPast<0>>(context, step, 0.1f)));
    CHECK_FALSE(passed(gate_of<SumOfPast<1>>(context, step)));
  }
  for (const index_t step : {1, 3, 1500}) {
    INFO(step);
    CHECK(gate_of<SumOfPast<0>>(1500, step).scope == "twin");
    CHECK(passed(gate_of<SumOfPast<0>>(1500, step)));
    CHECK_FALSE(passed(gate_of<SumOfPast<1>>(1500, step)));
  }
}

}  // namespace attn
