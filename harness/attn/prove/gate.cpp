#include "attn/prove/gate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attn/prove/sampled_rows.hpp"
#include "attn/variant/decode.hpp"
#include "attn/variant/planned.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

namespace {

constexpr index_t whole_up_to = 1024;  // queries and keys
constexpr index_t gate_rows = 64;

Reference evaluate_rows(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters,
                        const std::vector<index_t>& rows) {
  return {variant.definition(p, take_values<double>(p, in, rows), widen(parameters)),
          variant.definition(p, take_values<float>(p, in, rows), parameters)};
}

// What is allowed beyond the rounding of a definition whose arithmetic is done in this type, for a largest value.
double floor_of(DType arithmetic, double largest) { return 16 * epsilon_of(arithmetic) * largest + least_normal_of(arithmetic); }

GateResult compare_rows(const Reference& reference, View<const float, 4> output, const std::vector<index_t>& rows) {
  const Tensor<double>& truth = reference.exact;
  const Tensor<float>& rounded = reference.rounded;
  const Tensor<double> fast = take_rows<double>(output, rows);
  ATTN_ASSERT(truth.shape() == fast.shape() && rounded.shape() == fast.shape());

  GateResult gate{.done = true};
  double rounding = 0, largest = 0, difference2 = 0, truth2 = 0;
  for (index_t i = 0; i < truth.size(); ++i) {
    const double expected = truth.data()[i];
    const double error = std::abs(fast.data()[i] - expected);
    // A NaN or an infinity on one side only is an error beyond all (JSON knows no infinity); the same on both is agreement.
    if (!std::isfinite(error)) {
      const bool same = (std::isnan(expected) && std::isnan(fast.data()[i])) || expected == fast.data()[i];
      if (!same) gate.max_abs = std::numeric_limits<double>::max();
      continue;
    }
    gate.max_abs = std::max(gate.max_abs, error);
    const double float_error = std::abs(static_cast<double>(rounded.data()[i]) - expected);
    if (std::isfinite(float_error)) rounding = std::max(rounding, float_error);
    largest = std::max(largest, std::abs(expected));
    difference2 += error * error;
    truth2 += expected * expected;
  }
  gate.relative = truth2 > 0 ? std::sqrt(difference2 / truth2) : std::sqrt(difference2);
  gate.allowance_abs = 2 * rounding + floor_of(DType::f32, largest);
  return gate;
}

GateResult check_rows(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters,
                      View<const float, 4> output, const std::vector<index_t>& rows) {
  return compare_rows(evaluate_rows(variant, p, in, parameters, rows), output, rows);
}

GateResult check_twin(const Variant& variant, Problem p, const Arrays& in, std::uint64_t parameter_seed, const Arena& arena) {
  p.q_len = std::min(p.q_len, whole_up_to);
  p.kv_len = std::min(p.kv_len, whole_up_to);
  p.pass = Pass::forward;
  const Buffer memory = output_buffer(p);
  const View<float, 4> output = output_view(p, memory);
  Arrays twin{.q = in.q.first(2, p.q_len), .k = in.k.first(2, p.kv_len), .v = in.v.first(2, p.kv_len), .out = output};
  for (const InputSpec& spec : variant.inputs(p)) {
    Array part = in.more[spec.name];
    for (std::size_t axis = 0; axis < spec.extents.size(); ++axis) part = part.first(axis, spec.extents[axis]);
    twin.more.set(spec.name, part);
  }
  const Parameters specs = variant.parameters(p);
  ParameterSet<float> parameters;
  arena.execute([&] { parameters = make_parameters(specs, parameter_seed, fit_parameters(specs, twin)); });
  Planned planned(variant, p, arena.threads());
  planned.equip(std::move(parameters));
  planned.run(arena, twin);
  return check_rows(variant, p, twin, planned.parameters(), output, all_rows(p.q_len));
}

// The last rows of a reference.
Reference last_rows(const Reference& all, index_t count) {
  const index_t first = all.exact.extent(2) - count;
  return {slice_from(all.exact, 2, first), slice_from(all.rounded, 2, first)};
}

// Of the whole sequence's definition, the rows where a step's queries stand: the others need not be there.
Reference evaluate_step_rows(const Variant& variant, const Problem& p, const Arrays& sequence,
                             const ParameterSet<float>& parameters, const std::vector<index_t>& rows) {
  Arrays in = sequence;
  in.q = in.q.part(2, in.q.extent(2) - p.q_len, p.q_len);
  const Problem whole = whole_sequence(p);
  return {variant.definition(whole, take_values<double>(p, in, rows), widen(parameters)),
          variant.definition(whole, take_values<float>(p, in, rows), parameters)};
}

GateResult check_step_twin(const Variant& variant, Problem p, const Arrays& sequence, std::uint64_t parameter_seed,
                           const Arena& arena) {
  const index_t before = whole_up_to - std::min(p.q_len, whole_up_to);
  p.kv_len = whole_up_to;
  p.q_len = whole_up_to - before;
  const Buffer memory = output_buffer(p);
  Arrays twin = tokens_of(sequence, 0, p.kv_len), step = tokens_of(twin, before, p.q_len);
  step.out = output_view(p, memory);
  const Parameters specs = variant.parameters(whole_sequence(p));
  ParameterSet<float> parameters;
  arena.execute([&] { parameters = make_parameters(specs, parameter_seed, fit_parameters(specs, twin)); });
  const Problem planned_for = planned_step(variant, p);
  Planned planned(variant, planned_for, arena.threads());
  planned.equip(std::move(parameters));
  State state(variant.state(planned_for), p.batch);
  arena.execute([&] {
    take_up(planned, tokens_of(twin, 0, before), planned.parameters(), state);
    take_step(planned, step, planned.parameters(), state);
  });
  return check_step_against_definition(variant, p, twin, planned.parameters(), parameter_seed, step.out.f32(), arena);
}

}  // namespace

GateResult check_against_definition(const Variant& variant, const Problem& p, const Arrays& in,
                                    const ParameterSet<float>& parameters, std::uint64_t parameter_seed,
                                    View<const float, 4> output, const Arena& arena) {
  GateResult gate;
  if (p.q_len <= whole_up_to && p.kv_len <= whole_up_to) {
    gate = check_rows(variant, p, in, parameters, output, all_rows(p.q_len));
    gate.scope = "whole";
  } else if (variant.info().row_wise) {
    gate = check_rows(variant, p, in, parameters, output, sampled_rows(p.q_len, gate_rows));
    gate.scope = "rows";
  } else {
    gate = check_twin(variant, p, in, parameter_seed, arena);
    gate.scope = "twin";
  }
  return gate;
}

GateResult check_step_against_definition(const Variant& variant, const Problem& p, const Arrays& sequence,
                                         const ParameterSet<float>& parameters, std::uint64_t parameter_seed,
                                         View<const float, 4> output, const Arena& arena) {
  GateResult gate;
  if (variant.info().row_wise) {
    const auto rows = sampled_rows(p.q_len, p.kv_len <= whole_up_to ? p.q_len : gate_rows);
    gate = compare_rows(evaluate_step_rows(variant, p, sequence, parameters, rows), output, rows);
    gate.scope = std::ssize(rows) == p.q_len ? "whole" : "rows";
  } else if (p.kv_len <= whole_up_to) {
    const Reference whole = evaluate_definition(variant, whole_sequence(p), sequence, parameters);
    gate = compare_rows(last_rows(whole, p.q_len), output, all_rows(p.q_len));
    gate.scope = "whole";
  } else {
    gate = check_step_twin(variant, p, sequence, parameter_seed, arena);
    gate.scope = "twin";
  }
  return gate;
}

Reference evaluate_definition(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters) {
  return evaluate_rows(variant, p, in, parameters, all_rows(p.q_len));
}

GateResult compare_with_reference(const Reference& reference, View<const float, 4> output) {
  GateResult gate = compare_rows(reference, output, all_rows(output.extent(2)));
  gate.scope = "whole";
  return gate;
}

}  // namespace attn
