#include "attn/measure/gate.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "attn/core/rng.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

namespace {

constexpr index_t whole_up_to = 1024;  // queries and keys
constexpr index_t gate_rows = 64;
constexpr index_t fidelity_rows = 64;

std::vector<index_t> all_rows(index_t rows) {
  std::vector<index_t> list(static_cast<std::size_t>(rows));
  for (index_t i = 0; i < rows; ++i) list[static_cast<std::size_t>(i)] = i;
  return list;
}

template <class T>
Tensor<T> take_rows(View<const float, 4> view, const std::vector<index_t>& rows) {
  return tabulate<T>({view.extent(0), view.extent(1), static_cast<index_t>(rows.size()), view.extent(3)},
                     [&](index_t b, index_t h, index_t r, index_t d) { return view(b, h, rows[static_cast<std::size_t>(r)], d); });
}

template <class T>
Inputs<T> take_inputs(const Problem& p, const FloatInputs& in, const std::vector<index_t>& rows) {
  Inputs<T> taken{take_rows<T>(in.q, rows), Tensor<T>::from(in.k), Tensor<T>::from(in.v), {}};
  for (const index_t row : rows) taken.position.push_back(p.query_position(row));
  return taken;
}

GateResult check_rows(const Variant& variant, const Problem& p, const FloatInputs& in, const ParameterSet<float>& parameters,
                      View<const float, 4> output, const std::vector<index_t>& rows) {
  const Tensor<double> truth = variant.definition(p, take_inputs<double>(p, in, rows), widen(parameters));
  const Tensor<float> rounded = variant.definition(p, take_inputs<float>(p, in, rows), parameters);
  const Tensor<double> fast = take_rows<double>(output, rows);
  ATTN_ASSERT(truth.shape() == fast.shape() && rounded.shape() == fast.shape());

  GateResult gate{.done = true};
  double rounding = 0, largest = 0, difference2 = 0, truth2 = 0;
  for (index_t i = 0; i < truth.size(); ++i) {
    const double expected = truth.data()[i];
    const double error = std::abs(fast.data()[i] - expected);
    // A NaN on one side only is an error beyond all (JSON knows no infinity); on both it is agreement.
    if (std::isnan(error)) {
      if (!(std::isnan(expected) && std::isnan(fast.data()[i]))) gate.max_abs = std::numeric_limits<double>::max();
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
  gate.allowance_abs = 2 * rounding + 16 * static_cast<double>(std::numeric_limits<float>::epsilon()) * largest;
  return gate;
}

View<const float, 4> first_rows(View<const float, 4> view, index_t rows) {
  auto extents = view.extents();
  extents[2] = std::min(extents[2], rows);
  return {view.data_handle(), extents, view.strides()};
}

GateResult check_twin(const Variant& variant, Problem p, const FloatInputs& in, std::uint64_t parameter_seed, const Arena& arena) {
  p.q_len = std::min(p.q_len, whole_up_to);
  p.kv_len = std::min(p.kv_len, whole_up_to);
  const FloatInputs twin{first_rows(in.q, p.q_len), first_rows(in.k, p.kv_len), first_rows(in.v, p.kv_len)};
  const ParameterSet<float> parameters = make_parameters(variant.parameters(p), parameter_seed);
  Buffer memory(static_cast<std::size_t>(p.batch * p.heads * p.q_len * p.value_dim) * sizeof(float));
  const Output output(memory.as<float>(), {p.batch, p.heads, p.q_len, p.value_dim});
  WorkspacePlan booked(arena.threads());
  const auto plan = variant.plan(p, booked);
  Workspace workspace(booked);
  arena.execute([&] { plan->run(twin, parameters, output, workspace); });
  return check_rows(variant, p, twin, parameters, output, all_rows(p.q_len));
}

}  // namespace

std::vector<index_t> sampled_rows(index_t rows, index_t count) {
  if (rows <= count) return all_rows(rows);
  std::set<index_t> chosen = {0, rows - 1};
  const Rng rng(0, "sampled rows");
  for (index_t i = 0; static_cast<index_t>(chosen.size()) < count; ++i) chosen.insert(rng.below(i, rows));
  return {chosen.begin(), chosen.end()};
}

GateResult check_against_definition(const Variant& variant, const Problem& p, const FloatInputs& in,
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

Fidelity compare_with_softmax(const Problem& p, const FloatInputs& in, View<const float, 4> output) {
  const std::vector<index_t> rows = sampled_rows(p.q_len, fidelity_rows);
  const Inputs<double> inputs = take_inputs<double>(p, in, rows);
  const Tensor<double> exact = softmax_attention(p, inputs, every_key);
  const Tensor<double> given = take_rows<double>(output, rows);
  Inputs<double> indifferent = inputs;  // equal logits: the mean of the values each query may see
  indifferent.q = zeros<double>(inputs.q.shape());
  const Tensor<double> mean_v = softmax_attention(p, indifferent, every_key);

  double error2 = 0, norm2 = 0, mean_error2 = 0, worst = 0;
  std::vector<double> cosines;
  const index_t dim = p.value_dim;
  for (index_t row = 0; row < exact.size() / dim; ++row) {
    const double* e = exact.data() + row * dim;
    const double* g = given.data() + row * dim;
    const double* m = mean_v.data() + row * dim;
    double row_error2 = 0, row_norm2 = 0, given2 = 0, product = 0;
    for (index_t d = 0; d < dim; ++d) {
      row_error2 += (g[d] - e[d]) * (g[d] - e[d]);
      row_norm2 += e[d] * e[d];
      given2 += g[d] * g[d];
      product += g[d] * e[d];
      mean_error2 += (m[d] - e[d]) * (m[d] - e[d]);
    }
    error2 += row_error2;
    norm2 += row_norm2;
    if (row_norm2 > 0) worst = std::max(worst, std::sqrt(row_error2 / row_norm2));
    if (row_norm2 > 0 && given2 > 0) cosines.push_back(product / std::sqrt(row_norm2 * given2));
  }
  Fidelity fidelity{.done = true};
  fidelity.relative = norm2 > 0 ? std::sqrt(error2 / norm2) : 0;
  fidelity.skill = mean_error2 > 0 ? 1 - error2 / mean_error2 : (error2 == 0 ? 1 : 0);
  fidelity.worst_row = worst;
  if (!cosines.empty()) {
    const auto middle = cosines.begin() + static_cast<std::ptrdiff_t>(cosines.size() / 2);
    std::nth_element(cosines.begin(), middle, cosines.end());
    fidelity.cosine_p50 = *middle;
  }
  return fidelity;
}

}  // namespace attn
