#include "attn/prove/gradient_check.hpp"

#include <cmath>
#include <limits>

#include "attn/core/rng.hpp"
#include "attn/core/text.hpp"
#include "attn/prove/sampled_rows.hpp"
#include "attn/prove/trial.hpp"
#include "attn/variant/planned.hpp"

namespace attn {

namespace {

// Directions of each argument; long problems, which take their time, make do with one.
int directions(const Problem& p) { return p.q_len > 100 ? 1 : 2; }
constexpr int attempts = 12;  // to find a direction without a jump or kink
constexpr double tolerance = 1e-6;
constexpr double first_step = 1e-4;  // rounding costs 1e-16 / step, truncation step^4 after Richardson's extrapolation

Tensor<double> normal(const Shape& shape, const Rng& rng) {
  return generate<double>(shape, [&](index_t i) { return rng.normal(i); });
}

double norm(const Tensor<double>& x) { return std::sqrt(sum(square(x)).item()); }

}  // namespace

DefinitionFunction::DefinitionFunction(const Variant& variant, const Problem& p, const ParameterSet<float>& parameters)
    : variant_(variant), problem_(p), names_{"q", "k", "v"}, parameters_(widen(parameters)) {
  for (const auto& spec : variant.parameters(p)) {
    if (spec.trainable) names_.push_back(spec.name);
  }
  for (index_t row = 0; row < p.q_len; ++row) position_.push_back(p.query_position(row));
  const NamedTensors named = trial::named_for(variant, p);
  for (const auto& [name, array] : named.arrays) more_.emplace(name, to_tensor<double>(array));
}

Tensor<double> DefinitionFunction::operator()(const std::vector<Tensor<double>>& values) const {
  ATTN_ASSERT(values.size() == names_.size());
  ParameterSet<double> parameters = parameters_;
  for (std::size_t i = 3; i < values.size(); ++i) parameters.set(names_[i], values[i]);
  Values<double> in{values[0], values[1], values[2], position_, more_};
  return variant_.definition(problem_, in, parameters);
}

std::vector<Tensor<double>> tape_gradients(const DefinitionFunction& f, const std::vector<Tensor<double>>& at,
                                           const Tensor<double>& weights) {
  std::vector<Tensor<double>> leaves;
  for (const auto& value : at) leaves.push_back(variable(value));
  return gradients(sum(weights * f(leaves)), leaves);
}

std::string compare_tape_with_differences(const Variant& variant, const Problem& p) {
  const Rng rng(13, "gradient check " + to_string(p));
  const ParameterSet<float> parameters = make_parameters(variant.parameters(p), 11);
  const DefinitionFunction f(variant, p, parameters);

  std::vector<Tensor<double>> at = {normal({p.batch, p.heads, p.q_len, p.head_dim}, rng.substream(0)),
                                    normal({p.batch, p.kv_heads, p.kv_len, p.head_dim}, rng.substream(1)),
                                    normal({p.batch, p.kv_heads, p.kv_len, p.value_dim}, rng.substream(2))};
  for (std::size_t i = 3; i < f.arguments().size(); ++i) at.push_back(cast<double>(parameters[f.arguments()[i]]));
  const Tensor<double> weights = normal({p.batch, p.heads, p.q_len, p.value_dim}, rng.substream(3));

  const double size = sum(abs(weights * f(at))).item();
  const std::vector<Tensor<double>> tape = tape_gradients(f, at, weights);

  for (std::size_t argument = 0; argument < at.size(); ++argument) {
    const std::string& name = f.arguments()[argument];
    double step = first_step;
    int compared = 0;
    for (int attempt = 0; attempt < attempts && compared < directions(p); ++attempt) {
      const Tensor<double> direction =
          normal(at[argument].shape(), rng.substream(100 * argument + static_cast<std::uint64_t>(attempt) + 10));
      const auto loss = [&](double along) {
        std::vector<Tensor<double>> there = at;
        there[argument] = at[argument] + direction * along;
        return sum(weights * f(there)).item();
      };
      const auto quotient = [&](double h) { return (loss(h) - loss(-h)) / (2 * h); };
      const double coarse = quotient(step), fine = quotient(step / 2);
      const double slope = (4 * fine - coarse) / 3;
      const double claimed = sum(tape[argument] * direction).item();
      const double scale = std::max(std::abs(slope), norm(tape[argument]));
      const double rounding = 64 * std::numeric_limits<double>::epsilon() * size / step;
      if (!std::isfinite(claimed)) return "the gradient of " + name + " is not a number";
      // A jump of J within the step moves the coarse quotient by J / (2 step), the fine one by twice that or by nothing.
      if (!(std::abs(coarse - fine) <= 0.2 * tolerance * scale + rounding)) {
        step /= 2;
        continue;
      }
      ++compared;
      if (!(std::abs(slope - claimed) <= tolerance * scale + rounding)) {
        return "along a direction of " + name + " the tape says " + format_number(claimed) + ", differences " +
               format_number(slope);
      }
    }
    if (compared < directions(p)) {
      return "in " + std::to_string(attempts) + " directions of " + name +
             " differences do not settle: no smooth surroundings found";
    }
  }
  return "";
}

std::vector<GradientError> compare_backward_with_tape(const Variant& variant, const Problem& p, const Arrays& in,
                                                      const ParameterSet<float>& parameters, const Gradients& gradients) {
  const DefinitionFunction f(variant, p, parameters);
  const AsFloats floats(in);
  const FloatArrays views = floats.views();
  std::vector<Tensor<double>> at = {Tensor<double>::from(views.q), Tensor<double>::from(views.k), Tensor<double>::from(views.v)};
  std::vector<Tensor<double>> given = {Tensor<double>::from(gradients.d_q.f32()), Tensor<double>::from(gradients.d_k.f32()),
                                       Tensor<double>::from(gradients.d_v.f32())};
  for (std::size_t i = 3; i < f.arguments().size(); ++i) {
    at.push_back(cast<double>(parameters[f.arguments()[i]]));
    given.push_back(cast<double>(gradients.d_parameters[f.arguments()[i]]));
  }
  const std::vector<Tensor<double>> tape = tape_gradients(f, at, Tensor<double>::from(gradients.d_out.f32()));
  double largest = 0;
  for (const auto& gradient : tape) largest = std::max(largest, norm(gradient));
  std::vector<GradientError> errors;
  for (std::size_t i = 0; i < tape.size(); ++i) {
    errors.push_back({f.arguments()[i], norm(given[i] - tape[i]), norm(tape[i]), 1e-4 * norm(tape[i]) + 1e-5 * largest});
  }
  return errors;
}

std::vector<GradientError> check_backward(const Variant& variant, const Problem& given, const Arrays& in, std::uint64_t seed,
                                          const Arena& arena) {
  Problem p = given;
  p.pass = Pass::forward_backward;
  const auto share = [&](const Array& x, index_t rows) { return x.first(0, p.batch).first(2, rows); };
  const Buffer out = output_buffer(p);
  const Arrays arrays{
      .q = share(in.q, p.q_len), .k = share(in.k, p.kv_len), .v = share(in.v, p.kv_len), .out = output_view(p, out)};
  const Rng rng(seed, "gradient of the output");
  const Tensor<float> d_out =
      generate<float>({p.batch, p.heads, p.q_len, p.value_dim}, [&](index_t i) { return static_cast<float>(rng.normal(i)); });
  const auto unwritten = [](const Array& x) {
    Elements<float> elements(Shape(x.extents().begin(), x.extents().end()));
    std::fill_n(elements.writable(), elements.size(), std::numeric_limits<float>::quiet_NaN());
    return elements;
  };
  const auto view = [](Elements<float>& x) {
    return View<float, 4>(x.writable(), {x.extent(0), x.extent(1), x.extent(2), x.extent(3)});
  };
  Elements<float> d_q = unwritten(arrays.q), d_k = unwritten(arrays.k), d_v = unwritten(arrays.v);
  const Parameters specs = variant.parameters(p);
  const ParameterGradients d_parameters(specs);
  const Gradients gradients{{.d_out = View<const float, 4>(d_out.data(), {p.batch, p.heads, p.q_len, p.value_dim}),
                             .d_q = view(d_q),
                             .d_k = view(d_k),
                             .d_v = view(d_v)},
                            d_parameters};
  Planned planned(variant, p, arena.threads());
  planned.equip(make_parameters(specs, seed));
  arena.execute([&] {
    planned.run(arrays);
    planned.backward(arrays, gradients);
  });
  return compare_backward_with_tape(variant, p, arrays, planned.parameters(), gradients);
}

}  // namespace attn
