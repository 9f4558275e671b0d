// Properties of states: that what they answer is the causal definition's, however the tokens came into them.
#include <array>

#include "attn/prove/conformance_checker.hpp"
#include "attn/variant/decode.hpp"

namespace attn::conformance {

namespace {

// The causal problems of self-attention that are decoded here, each as a whole.
std::vector<Problem> sequences() {
  std::vector<Problem> list;
  for (const Problem& p : awkward_problems(false)) {
    if (p.causal && p.self_attention() && p.q_len <= 130) list.push_back(p);
  }
  return list;
}

Problem step_of(Problem whole, index_t tokens, index_t length) {
  whole.q_len = tokens;
  whole.kv_len = length;
  whole.pass = Pass::decode;
  return whole;
}

// With the parameters that the whole problem is given.
Planned plan_step(const Variant& variant, const ParameterSet<float>& of_whole, const Problem& step, int threads) {
  Planned planned(variant, step, threads);
  planned.equip(of_whole, Workspace::Mode::checked);
  return planned;
}

// Rows where no token has come are nobody's to read.
State fresh_state(const Variant& variant, const Problem& step, index_t start = 0) {
  State state(variant.state(step), step.batch, start);
  if (!state.spec().of_tokens) return state;
  for (const StateTensor& tensor : state.spec().tensors)
    for_each_element(state[tensor.name].f32_out(), 0, 0, 0, [](float& x) { x = nan; });
  return state;
}

void copy_rows(const Tensor<double>& from, index_t first, index_t end, const View<float, 4>& to) {
  for (index_t b = 0; b < to.extent(0); ++b)
    for (index_t h = 0; h < to.extent(1); ++h)
      for (index_t i = first; i < end; ++i)
        for (index_t d = 0; d < to.extent(3); ++d) to(b, h, i, d) = static_cast<float>(from(b, h, i, d));
}

}  // namespace

template <class F>
void Checker::for_each_stepped(F f) {
  if (!variant_.steps()) return none("has no state of its own");
  for (const Problem& whole : sequences()) {
    const Problem step = step_of(whole, 1, whole.kv_len);
    if (!variant_.supports(step) || !variant_.supports(whole)) continue;
    f(step, whole, case_of(whole));
  }
}

// The tokens one by one, and three at a time where the state has them all, from an empty state and after a prompt.
void Checker::decode() {
  const Arena arena(options_.threads);
  // Else a state of tokens is run over, by a plan for as many.
  const bool one_plan = variant_.steps() || variant_.reads_layouts();
  for (const Problem& whole : sequences()) {
    if (!variant_.supports(whole)) continue;
    for (const index_t tokens : {1, 3}) {
      const Problem last = step_of(whole, tokens, whole.kv_len);
      if (!variant_.supports(last) || (tokens > 1 && variant_.steps())) continue;
      for (const index_t prompt : {index_t{0}, whole.kv_len / 2}) {
        if (prompt > 0 && whole.kv_len < 4) continue;
        const std::string how = "decoded by steps of " + std::to_string(tokens) + " after " + std::to_string(prompt);
        begin(whole, how);
        const Case c = case_of(whole);
        c.fill_output(nan);
        copy_rows(reference(whole).exact, 0, prompt, c.out);
        State state = fresh_state(variant_, last);
        std::optional<Planned> planned(plan_step(variant_, parameters_of(whole), last, options_.threads));
        if (prompt > 0) arena.execute([&] { planned->absorb(tokens_of(c.arrays(), 0, prompt), state); });
        index_t t = prompt;
        for (; t + tokens <= whole.kv_len; t += tokens) {
          if (!one_plan)
            planned.emplace(plan_step(variant_, parameters_of(whole), step_of(whole, tokens, t + tokens), options_.threads));
          const Arrays now = tokens_of(c.arrays(), t, tokens);
          arena.execute([&] {
            if (prompt == 0) return planned->step(now, planned->parameters(), state);
            planned->absorb(now, state);
            planned->answer(now, state);
          });
        }
        copy_rows(reference(whole).exact, t, whole.kv_len, c.out);
        judge(whole, compare_with_reference(reference(whole), c.out), how);
      }
    }
  }
}

void Checker::splits() {
  const Arena arena(options_.threads);
  for_each_stepped([&](const Problem& step, const Problem& whole, const Case& c) {
    for (const index_t most : {1, 7, 100}) {
      begin(whole, "absorbed " + std::to_string(most) + " at a time");
      const Planned planned = plan_step(variant_, parameters_of(whole), step, options_.threads);
      State state = fresh_state(variant_, step);
      const index_t n = whole.kv_len;
      copy_rows(reference(whole).exact, 0, whole.kv_len, c.out);
      arena.execute([&] {
        for (index_t t = 0; t < n; t += most) planned.absorb(tokens_of(c.arrays(), t, std::min(most, n - t)), state);
        planned.answer(tokens_of(c.arrays(), n - 1, 1), state);
      });
      judge(whole, compare_with_reference(reference(whole), c.out),
            "the last row, absorbed " + std::to_string(most) + " at a time");
    }
  });
}

// Three stretches: the first two merged first, then the last two.
void Checker::merge() {
  if (!variant_.merges()) return none("merges no states");
  const Arena arena(options_.threads);
  for_each_stepped([&](const Problem& step, const Problem& whole, const Case& c) {
    const index_t n = whole.kv_len;
    const std::array<index_t, 4> bounds = {0, n / 3, n / 2, n};
    for (const bool from_left : {true, false}) {
      begin(whole, from_left ? "from the left" : "from the right");
      const Planned planned = plan_step(variant_, parameters_of(whole), step, options_.threads);
      std::vector<State> parts;
      for (std::size_t s = 0; s < 3; ++s) {
        parts.push_back(fresh_state(variant_, step, bounds[s]));
        arena.execute([&] {
          for (index_t t = bounds[s]; t < bounds[s + 1]; ++t) planned.absorb(tokens_of(c.arrays(), t, 1), parts[s]);
        });
      }
      if (!from_left) planned.merge(parts[1], parts[2]);
      planned.merge(parts[0], parts[1]);
      if (from_left) planned.merge(parts[0], parts[2]);
      copy_rows(reference(whole).exact, 0, whole.kv_len, c.out);
      arena.execute([&] { planned.answer(tokens_of(c.arrays(), n - 1, 1), parts[0]); });
      judge(whole, compare_with_reference(reference(whole), c.out), "the last row, of three stretches merged");
    }
  });
}

}  // namespace attn::conformance
