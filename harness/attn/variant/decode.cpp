#include "attn/variant/decode.hpp"

#include <algorithm>

namespace attn {

namespace {

// The tokens in parts of at most so many.
template <class F>
void for_each_part(const Arrays& tokens, index_t most, F f) {
  const index_t count = tokens_in(tokens);
  for (index_t t = 0; t < count; t += most) f(tokens_of(tokens, t, std::min(most, count - t)));
}

}  // namespace

Problem whole_sequence(Problem step) {
  step.q_len = step.kv_len;
  step.pass = Pass::forward;
  return step;
}

Problem planned_step(const Variant& variant, Problem step) {
  if (!variant.state(step).of_tokens) step.q_len = 1;
  return step;
}

Arrays tokens_of(const Arrays& sequence, index_t first, index_t count) {
  Arrays some = sequence;
  for (Array* array : {&some.q, &some.k, &some.v, &some.out}) {
    if (!array->empty()) *array = array->part(2, first, count);
  }
  for (const auto& [name, array] : sequence.more) some.more.set(name, array.part(2, first, count));
  return some;
}

index_t most_at_once(const State& state, const Arrays& tokens) { return state.spec().of_tokens ? tokens_in(tokens) : 1; }

void take_up(const Planned& planned, const Arrays& tokens, const ParameterSet<float>& parameters, State& state, index_t most) {
  for_each_part(tokens, most, [&](const Arrays& some) { planned.absorb(some, parameters, state); });
}

void take_step(const Planned& planned, const Arrays& tokens, const ParameterSet<float>& parameters, State& state) {
  for_each_part(tokens, most_at_once(state, tokens), [&](const Arrays& some) {
    planned.step(some, parameters, state);
  });
}

}  // namespace attn
