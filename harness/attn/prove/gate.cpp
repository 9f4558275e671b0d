#include "attn/prove/gate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "attn/core/rng.hpp"
#include "attn/prove/sampled_rows.hpp"
#include "attn/variant/decode.hpp"
#include "attn/variant/planned.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

namespace {

constexpr index_t whole_up_to = 1024;  // queries and keys
constexpr index_t gate_rows = 64;
constexpr float infinity = std::numeric_limits<float>::infinity();

template <class T>
Tensor<T> define(const Variant& variant, const Problem& p, const Values<T>& in, const ParameterSet<float>& parameters) {
  if constexpr (std::is_same_v<T, double>)
    return variant.definition(p, in, widen(parameters));
  else
    return variant.definition(p, in, parameters);
}

template <class T>
Tensor<T> evaluate_rows(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters,
                        const std::vector<index_t>& rows) {
  return define(variant, p, take_values<T>(p, in, rows), parameters);
}

// What is allowed beyond the rounding of a definition whose arithmetic is done in this type, for a largest value.
double floor_of(DType arithmetic, double largest) { return 16 * epsilon_of(arithmetic) * largest + least_normal_of(arithmetic); }

double floor_of(const Tensor<double>& exact) {
  double largest = 0;
  for (const double x : exact.values())
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  return floor_of(DType::f32, largest);
}

GateResult compare(const Reference& reference, const Tensor<double>& fast) {
  const Tensor<double>& truth = reference.exact;
  const Tensor<float>& rounded = reference.rounded;
  ATTN_ASSERT(truth.shape() == fast.shape() && rounded.shape() == fast.shape());

  GateResult gate{.done = true};
  double rounding = 0, difference2 = 0, truth2 = 0;
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
    difference2 += error * error;
    truth2 += expected * expected;
  }
  gate.relative = truth2 > 0 ? std::sqrt(difference2 / truth2) : std::sqrt(difference2);
  gate.allowance_abs = 2 * rounding + floor_of(truth);
  return gate;
}

// The largest finite difference in each row.
template <class T>
std::vector<double> largest_of_rows(const Tensor<double>& truth, const Tensor<T>& other) {
  const index_t width = truth.extent(-1);
  std::vector<double> largest(static_cast<std::size_t>(truth.size() / width));
  for (index_t i = 0; i < truth.size(); ++i) {
    const double difference = std::abs(static_cast<double>(other.data()[i]) - truth.data()[i]);
    double& of_row = largest[static_cast<std::size_t>(i / width)];
    if (std::isfinite(difference)) of_row = std::max(of_row, difference);
  }
  return largest;
}

// Q, K and V with each number as it is or one of the two floats next to it.
class Nearby {
 public:
  Nearby(const Arrays& in, index_t draw) : arrays_(in) {
    const Rng rng(static_cast<std::uint64_t>(draw), "inputs a rounding away");
    arrays_.q = moved(in.q.f32(), rng.substream(0), q_);
    arrays_.k = moved(in.k.f32(), rng.substream(1), k_);
    arrays_.v = moved(in.v.f32(), rng.substream(2), v_);
  }
  const Arrays& arrays() const { return arrays_; }

 private:
  static View<const float, 4> moved(const View<const float, 4>& x, const Rng& rng, std::vector<float>& values) {
    const Tensor<float> dense = Tensor<float>::from(x);
    values.assign(dense.values().begin(), dense.values().end());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const index_t way = rng.below(static_cast<index_t>(i), 3) - 1;
      if (way != 0 && values[i] != 0) values[i] = std::nextafter(values[i], static_cast<float>(way) * infinity);
    }
    return {values.data(), x.extents()};
  }

  std::vector<float> q_, k_, v_;
  Arrays arrays_;
};

// What float arithmetic loses is a matter of chance, most of all in a row where the largest logits tie: there it is one number, of
// either sign, and that another such number is more than twice as large happens in 3 of 10 cases. So where a row is beyond the
// allowance, more is drawn: the row's allowance follows from the largest of so many errors of the definition in float, of inputs that
// are a rounding away, as those are of a kernel that scales what it reads. Another error exceeds it twice over in 1 of 1000 cases.
constexpr index_t most_draws = 16;
// ... but for an error that chance does not explain: of two normal numbers one is 2000 times the other in 3 of 10000 cases.
constexpr double hopeless = 1000;

// Each row with an allowance of its own; gate.allowance_abs becomes what gate.max_abs would have been allowed at the row that is
// beyond its own the most. `beyond`: of `rows`, those to draw for. draw(i, rows): the definition in float.
template <class Draw>
void draw_more(const Draw& draw, const Tensor<double>& exact, const Tensor<double>& fast, const std::vector<index_t>& rows,
               const std::vector<std::size_t>& beyond, GateResult& gate) {
  const std::vector<double> errors = largest_of_rows(exact, fast);
  std::vector<double> allowed(errors.size(), gate.allowance_abs);
  std::vector<index_t> numbers, places;
  for (const std::size_t r : beyond) numbers.push_back(rows[r]), places.push_back(static_cast<index_t>(r));
  const Tensor<double> truth = take(exact, Indices({std::ssize(places)}, places), 2);
  const double floor = floor_of(exact);
  double worst = gate.max_abs / gate.allowance_abs;
  for (index_t i = 0; i < most_draws && worst > 1; ++i) {
    const std::vector<double> rounding = largest_of_rows(truth, draw(i, numbers));
    for (std::size_t r = 0; r < rounding.size(); ++r) {
      const std::size_t at = r / beyond.size() * rows.size() + beyond[r % beyond.size()];
      allowed[at] = std::max(allowed[at], 2 * rounding[r] + floor);
    }
    worst = 0;
    for (std::size_t at = 0; at < errors.size(); ++at) worst = std::max(worst, errors[at] / allowed[at]);
  }
  gate.allowance_abs = gate.max_abs / worst;
}

// evaluate<T>(inputs, rows): the definition at some rows of the output.
template <class Evaluate>
GateResult judge(const Variant& variant, const Evaluate& evaluate, const Arrays& in, View<const float, 4> output,
                 const std::vector<index_t>& rows) {
  const Reference reference{evaluate.template operator()<double>(in, rows), evaluate.template operator()<float>(in, rows)};
  const Tensor<double> fast = take_rows<double>(output, rows);
  GateResult gate = compare(reference, fast);
  if (passed(gate) || gate.max_abs > hopeless * gate.allowance_abs) return gate;
  const std::vector<double> errors = largest_of_rows(reference.exact, fast);
  std::vector<std::size_t> beyond;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    bool any = !variant.info().row_wise;  // of what is not, rows cannot be taken alone
    for (std::size_t at = r; at < errors.size(); at += rows.size()) any = any || errors[at] > gate.allowance_abs;
    if (any) beyond.push_back(r);
  }
  const auto draw = [&](index_t i, const std::vector<index_t>& at) {
    return evaluate.template operator()<float>(Nearby(in, i).arrays(), at);
  };
  draw_more(draw, reference.exact, fast, rows, beyond, gate);
  return gate;
}

GateResult check_rows(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters,
                      View<const float, 4> output, const std::vector<index_t>& rows) {
  const auto evaluate = [&]<class T>(const Arrays& given, const std::vector<index_t>& at) {
    return evaluate_rows<T>(variant, p, given, parameters, at);
  };
  return judge(variant, evaluate, in, output, rows);
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

// Of the whole sequence's definition, the rows where a step's queries stand: the others need not be there.
template <class T>
Tensor<T> evaluate_step_rows(const Variant& variant, const Problem& p, const Arrays& sequence,
                             const ParameterSet<float>& parameters, const std::vector<index_t>& rows) {
  Arrays in = sequence;
  in.q = in.q.part(2, in.q.extent(2) - p.q_len, p.q_len);
  return define(variant, whole_sequence(p), take_values<T>(p, in, rows), parameters);
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
    const auto evaluate = [&]<class T>(const Arrays& in, const std::vector<index_t>& at) {
      return evaluate_step_rows<T>(variant, p, in, parameters, at);
    };
    gate = judge(variant, evaluate, sequence, output, rows);
    gate.scope = std::ssize(rows) == p.q_len ? "whole" : "rows";
  } else if (p.kv_len <= whole_up_to) {
    const auto evaluate = [&]<class T>(const Arrays& in, const std::vector<index_t>&) {
      const Tensor<T> whole = evaluate_rows<T>(variant, whole_sequence(p), in, parameters, all_rows(p.kv_len));
      return slice_from(whole, 2, p.kv_len - p.q_len);
    };
    gate = judge(variant, evaluate, sequence, output, all_rows(p.q_len));
    gate.scope = "whole";
  } else {
    gate = check_step_twin(variant, p, sequence, parameter_seed, arena);
    gate.scope = "twin";
  }
  return gate;
}

Reference evaluate_definition(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters) {
  const std::vector<index_t> rows = all_rows(p.q_len);
  return {evaluate_rows<double>(variant, p, in, parameters, rows), evaluate_rows<float>(variant, p, in, parameters, rows)};
}

GateResult compare_with_reference(const Reference& reference, View<const float, 4> output) {
  GateResult gate = compare(reference, take_rows<double>(output, all_rows(output.extent(2))));
  gate.scope = "whole";
  return gate;
}

}  // namespace attn
