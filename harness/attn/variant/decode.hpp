// Decodes: the tokens of a sequence into a state, and its last ones answered.
#pragma once

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/exec/state.hpp"
#include "attn/variant/planned.hpp"

namespace attn {

// The sequence that a decode's step ends, as one causal problem: its definition says what the step gives, its parameters are the step's.
Problem whole_sequence(Problem step);

// What a plan for a step is made for. Tokens that are folded into sums come and are answered one by one: an answer is about all tokens.
Problem planned_step(const Variant& variant, Problem step);

// How many tokens a step takes up at once.
index_t most_at_once(const State& state, const Arrays& tokens);

// Inside an arena, by a plan for a step. Tokens that follow those of the state are taken up, at most so many at once,
void take_up(const Planned& planned, const Arrays& tokens, const ParameterSet<float>& parameters, State& state,
             index_t most = 1024);
// and answered too.
void take_step(const Planned& planned, const Arrays& tokens, const ParameterSet<float>& parameters, State& state);

}  // namespace attn
