#include "attn/variant/decode.hpp"

namespace attn {

Problem whole_sequence(Problem step) {
  step.q_len = step.kv_len;
  step.pass = Pass::forward;
  return step;
}

Problem planned_step(const Variant& variant, Problem step) {
  if (!variant.state(step).of_tokens) step.q_len = 1;
  return step;
}

index_t most_at_once(const State& state, const Arrays& tokens) { return state.spec().of_tokens ? tokens_in(tokens) : 1; }

void take_up(const Planned& planned, const Arrays& tokens, const ParameterSet<float>& parameters, State& state, index_t most) {
  for_each_part(tokens, most, [&](const Arrays& some) { planned.absorb(some, parameters, state); });
}

void take_step(const Planned& planned, const Arrays& tokens, const ParameterSet<float>& parameters, State& state) {
  for_each_part(tokens, most_at_once(state, tokens), [&](const Arrays& some) { planned.step(some, parameters, state); });
}

}  // namespace attn
