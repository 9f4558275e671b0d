// Properties of number types: what a variant computes of stored numbers is what it computes of the floats that they are.
#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "attn/prove/conformance_checker.hpp"

namespace attn::conformance {

namespace {

struct Types {
  DType q, kv;
};

// Both alike, or beside bf16 what queries are not of; and a cache that is smaller than the queries.
constexpr auto all_types = [] {
  std::array<Types, dtype_table.size()> list{};
  std::ranges::transform(dtype_table, list.begin(),
                         [](const DTypeFacts& facts) { return Types{facts.of_queries ? facts.dtype : DType::bf16, facts.dtype}; });
  static_assert(dtype_table[0].dtype == DType::f32);  // which alone is what all else is tried with
  list[0] = {DType::f32, DType::bf16};
  return list;
}();

std::vector<Problem> problems(const Variant& variant) {
  std::vector<Problem> list;
  const auto add = [&](Problem p) {
    for (const bool causal : {false, true}) {
      p.causal = causal;
      if (variant.supports(p)) list.push_back(p);
    }
  };
  add({.batch = 1, .heads = 2, .kv_heads = 2, .q_len = 1, .kv_len = 1, .head_dim = 64, .value_dim = 64});
  add({.batch = 2, .heads = 2, .kv_heads = 2, .q_len = 131, .kv_len = 131, .head_dim = 64, .value_dim = 64});
  add({.batch = 1, .heads = 1, .kv_heads = 1, .q_len = 97, .kv_len = 97, .head_dim = 7, .value_dim = 7});
  add({.batch = 1, .heads = 4, .kv_heads = 2, .q_len = 70, .kv_len = 70, .head_dim = 128, .value_dim = 96});
  add({.batch = 1, .heads = 4, .kv_heads = 2, .q_len = 3, .kv_len = 211, .head_dim = 32, .value_dim = 32});
  return list;
}

Problem stored_as(Problem p, const Types& types) {
  p.dtype = types.q;
  p.kv_dtype = types.kv;
  return p;
}

std::string named(const Types& types) { return std::string(to_string(types.q)) + ", kv " + std::string(to_string(types.kv)); }

// NaN and infinities stand in the same places.
bool same_kind(float a, float b) {
  return std::isnan(a) == std::isnan(b) && std::isinf(a) == std::isinf(b) && (!std::isinf(a) || a == b);
}

}  // namespace

// The plan of the stored problem on stored numbers, in rows that lie anyhow, against that of floats on the same numbers: the same bits
// where products are made of floats, else within the allowance of rounded operands.
void Checker::dtypes() {
  const Arena arena(options_.threads);
  for (const Types& types : all_types) stored_steps(types.q, types.kv, arena);
  for (const Problem& p : problems(variant_)) {
    for (const Types& types : all_types) {
      const Problem stored = stored_as(p, types);
      if (!variant_.supports(stored)) continue;
      const bool rounds = variant_.compute(stored) != kernels::Compute::f32;
      const ParameterSet<float> parameters = parameters_of(p);
      Planned of_floats(variant_, p, options_.threads), of_stored(variant_, stored, options_.threads);
      of_floats.equip(parameters);
      of_stored.equip(parameters, Workspace::Mode::checked);
      for (const Layout layout : {Layout::dense, Layout::padded}) {
        const Border border = layout == Layout::dense ? Border::guard_after : Border::soft;
        begin(p, named(types) + ", " + std::string(to_string(layout)));
        const Case c = case_of(p);
        const Stored s(c, types.q, types.kv, layout, border);
        const auto run = [&](const Planned& planned, const Arrays& arrays) {
          c.fill_output(nan);
          planned.run(arena, arrays);
          return c.output();
        };
        const std::vector<float> expected = run(of_floats, c.arrays()), found = run(of_stored, s.arrays());
        if (!rounds && !same_bits(expected, found)) fail(p, named(types) + " gives other bits than floats of the same numbers");
        if (rounds)
          judge(p, compare_with_reference(evaluate_definition(variant_, stored, s.arrays(), parameters), c.out), named(types));
        if (!of_stored.workspace().gaps_intact()) fail(p, named(types) + ": a booked scratch array was overrun");
      }
      special_numbers(p, types.q, types.kv, of_floats, of_stored, arena);
    }
  }
}

// A state takes stored tokens and is asked by stored queries: a whole sequence, then its last token.
void Checker::stored_steps(DType dtype, DType kv_dtype, const Arena& arena) {
  const Problem whole{
      .batch = 1, .heads = 2, .kv_heads = 2, .q_len = 37, .kv_len = 37, .head_dim = 32, .value_dim = 32, .causal = true};
  Problem step = whole;
  step.q_len = 1;
  step.pass = Pass::decode;
  const Problem stored = stored_as(step, {dtype, kv_dtype});
  if (!variant_.supports(stored) || !variant_.supports(step)) return;
  const std::string words = named({dtype, kv_dtype}) + ", decoded";
  begin(step, words);
  const Case c = case_of(whole);
  const Stored s(c, dtype, kv_dtype);
  const auto decode = [&](const Problem& p, const Arrays& arrays) {
    Planned planned(variant_, p, options_.threads);
    planned.equip(parameters_of(whole));
    State state(variant_.state(p), p.batch);
    c.fill_output(nan);
    arena.execute([&] {
      planned.absorb(tokens_of(arrays, 0, whole.kv_len - 1), state);
      const Arrays last = tokens_of(arrays, whole.kv_len - 1, 1);
      planned.absorb(last, state);
      planned.answer(last, state);
    });
    return c.output();
  };
  if (!same_bits(decode(step, c.arrays()), decode(stored, s.arrays())))
    fail(step, words + " gives other bits than floats of the same numbers");
}

// V of ones, where every weight counts; then what is no number, which must show where it shows in floats.
void Checker::special_numbers(const Problem& p, DType dtype, DType kv_dtype, const Planned& of_floats, const Planned& of_stored,
                              const Arena& arena) {
  const std::string words = named({dtype, kv_dtype});
  const auto compare = [&](const std::string& what, const auto& change, const auto& agree) {
    begin(p, words + ", " + what);
    const Case c = case_of(p);
    change(c);
    const Stored s(c, dtype, kv_dtype);
    const std::vector<float> expected = output_of_run(of_floats, arena, c);
    c.fill_output(nan);
    of_stored.run(arena, s.arrays());
    const std::vector<float> found = c.output();
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (!agree(expected[i], found[i]))
        return fail(p, words + ", " + what + ": " + brief(found[i]) + " where floats give " + brief(expected[i]));
    }
  };
  if (kv_dtype != DType::q8) {  // whose one is 127 rounded scales
    const auto ones = [](const Case& c) { for_each_element(c.v, 0, 0, 0, [](float& x) { x = 1; }); };
    compare("V of ones", ones, [](float a, float b) { return std::abs(a - 1) > 1e-5f || std::abs(b - 1) <= std::abs(a - 1); });
  }
  for (const auto& [name, poison] : {std::pair{"NaN", nan}, {"infinity", infinity}}) {
    for (const int which : {0, 1, 2}) {
      if (which > 0 && kv_dtype == DType::q8) continue;  // a block of it is none of it
      compare(
          std::string(name) + " in " + "QKV"[which],
          [&](const Case& c) {
            const auto& tensor = which == 0 ? c.q : which == 1 ? c.k : c.v;
            tensor(0, 0, tensor.extent(2) / 2, tensor.extent(3) / 2) = poison;
          },
          same_kind);
    }
  }
}

}  // namespace attn::conformance
