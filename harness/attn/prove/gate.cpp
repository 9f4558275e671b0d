#include "attn/prove/gate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "attn/algebra/rounded_results.hpp"
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

double largest_of(const Tensor<double>& values) {
  double largest = 0;
  for (const double x : values.values())
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  return largest;
}

// What the operands of a fast path's products are rounded to, and whether their results are too: of a framework in another process, what one
// operator hands to the next is a tensor of the inputs' type. One that rounds less passes more easily.
struct Arithmetic {
  DType operands;
  bool results;
};
Arithmetic arithmetic_of(const Variant& variant, const Problem& p) {
  if (variant.is_guest()) return {p.dtype, p.dtype != DType::f32};
  return {variant.compute(p) == kernels::Compute::f32 ? DType::f32 : DType::bf16, false};
}

// The inputs with every value's size in its place.
class OfSizes {
 public:
  explicit OfSizes(const Arrays& in) : arrays_(in) {
    const AsFloats floats(in);
    v_ = abs(Tensor<float>::from(floats.views().v));
    arrays_.v = View<const float, 4>(v_.data(), {v_.extent(0), v_.extent(1), v_.extent(2), v_.extent(3)});
  }
  const Arrays& arrays() const { return arrays_; }

 private:
  Tensor<float> v_;
  Arrays arrays_;
};

// evaluate<T>(inputs, rows): the definition at some rows of the output.
template <class Evaluate>
Reference reference_of(const Evaluate& evaluate, const Arrays& in, const std::vector<index_t>& rows, const Arithmetic& fast) {
  const DType operands = fast.operands;
  const RoundedProducts rounding(operands);
  const RoundedResults results(fast.results);
  Reference r{evaluate.template operator()<double>(in, rows), evaluate.template operator()<float>(in, rows)};
  r.floor = floor_of(DType::f32, largest_of(r.exact));
  if (operands == DType::f32) return r;
  const double sums = largest_of(evaluate.template operator()<double>(OfSizes(in).arrays(), rows));
  r.floor = std::max(r.floor, epsilon_of(operands) / 2 * std::max(sums, largest_of(r.exact)));
  return r;
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
  gate.allowance_abs = 2 * rounding + reference.floor;
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
    const AsFloats floats(in);
    const FloatArrays views = floats.views();
    arrays_.q = moved(views.q, rng.substream(0), q_);
    arrays_.k = moved(views.k, rng.substream(1), k_);
    arrays_.v = moved(views.v, rng.substream(2), v_);
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
void draw_more(const Draw& draw, const Reference& reference, const Tensor<double>& fast, const std::vector<index_t>& rows,
               const std::vector<std::size_t>& beyond, GateResult& gate) {
  const std::vector<double> errors = largest_of_rows(reference.exact, fast);
  std::vector<double> allowed(errors.size(), gate.allowance_abs);
  std::vector<index_t> numbers, places;
  for (const std::size_t r : beyond) numbers.push_back(rows[r]), places.push_back(static_cast<index_t>(r));
  const Tensor<double> truth = take(reference.exact, Indices({std::ssize(places)}, places), 2);
  double worst = gate.max_abs / gate.allowance_abs;
  for (index_t i = 0; i < most_draws && worst > 1; ++i) {
    const std::vector<double> rounding = largest_of_rows(truth, draw(i, numbers));
    for (std::size_t r = 0; r < rounding.size(); ++r) {
      const std::size_t at = r / beyond.size() * rows.size() + beyond[r % beyond.size()];
      allowed[at] = std::max(allowed[at], 2 * rounding[r] + reference.floor);
    }
    worst = 0;
    for (std::size_t at = 0; at < errors.size(); ++at) worst = std::max(worst, errors[at] / allowed[at]);
  }
  gate.allowance_abs = gate.max_abs / worst;
}

template <class Evaluate>
GateResult judge(const Variant& variant, const Problem& p, const Evaluate& evaluate, const Arrays& in, View<const float, 4> output,
                 const std::vector<index_t>& rows) {
  const Arithmetic arithmetic = arithmetic_of(variant, p);
  const Reference reference = reference_of(evaluate, in, rows, arithmetic);
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
    const RoundedProducts rounding(arithmetic.operands);
    const RoundedResults results(arithmetic.results);
    return evaluate.template operator()<float>(Nearby(in, i).arrays(), at);
  };
  draw_more(draw, reference, fast, rows, beyond, gate);
  return gate;
}

GateResult check_rows(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters,
                      View<const float, 4> output, const std::vector<index_t>& rows) {
  const auto evaluate = [&]<class T>(const Arrays& given, const std::vector<index_t>& at) {
    return evaluate_rows<T>(variant, p, given, parameters, at);
  };
  return judge(variant, p, evaluate, in, output, rows);
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
    gate = judge(variant, p, evaluate, sequence, output, rows);
    gate.scope = std::ssize(rows) == p.q_len ? "whole" : "rows";
  } else if (p.kv_len <= whole_up_to) {
    const auto evaluate = [&]<class T>(const Arrays& in, const std::vector<index_t>&) {
      const Tensor<T> whole = evaluate_rows<T>(variant, whole_sequence(p), in, parameters, all_rows(p.kv_len));
      return slice_from(whole, 2, p.kv_len - p.q_len);
    };
    gate = judge(variant, p, evaluate, sequence, output, all_rows(p.q_len));
    gate.scope = "whole";
  } else {
    gate = check_step_twin(variant, p, sequence, parameter_seed, arena);
    gate.scope = "twin";
  }
  return gate;
}

Reference evaluate_definition(const Variant& variant, const Problem& p, const Arrays& in, const ParameterSet<float>& parameters) {
  const auto evaluate = [&]<class T>(const Arrays& given, const std::vector<index_t>& at) {
    return evaluate_rows<T>(variant, p, given, parameters, at);
  };
  return reference_of(evaluate, in, all_rows(p.q_len), arithmetic_of(variant, p));
}

GateResult compare_with_reference(const Reference& reference, View<const float, 4> output) {
  GateResult gate = compare(reference, take_rows<double>(output, all_rows(output.extent(2))));
  gate.scope = "whole";
  return gate;
}

std::optional<double> storage_error(const Variant& variant, const Problem& p, const Arrays& stored, const Arrays& given,
                                    const ParameterSet<float>& parameters) {
  const bool decodes = p.pass == Pass::decode, whole = p.kv_len <= whole_up_to && (decodes || p.q_len <= whole_up_to);
  if (!whole && !variant.info().row_wise) return {};
  const bool all = decodes && !variant.info().row_wise;  // rows of the sequence, of which the step's are the last
  const Problem of = decodes ? whole_sequence(p) : p;
  const std::vector<index_t> rows = all ? all_rows(p.kv_len) : sampled_rows(p.q_len, whole ? p.q_len : gate_rows);
  const auto evaluate = [&](const Arrays& in) {
    if (decodes && !all) return evaluate_step_rows<double>(variant, p, in, parameters, rows);
    return evaluate_rows<double>(variant, of, in, parameters, rows);
  };
  const Tensor<double> exact = evaluate(given), rounded = evaluate(stored);
  double difference2 = 0, exact2 = 0;
  for (index_t i = 0; i < exact.size(); ++i) {
    const double difference = rounded.data()[i] - exact.data()[i];
    if (std::isfinite(difference)) difference2 += difference * difference, exact2 += exact.data()[i] * exact.data()[i];
  }
  return exact2 > 0 ? std::sqrt(difference2 / exact2) : std::sqrt(difference2);
}

}  // namespace attn
