#include "attn/cell/cell_run.hpp"

#include <algorithm>
#include <limits>

#include "attn/core/rng.hpp"
#include "attn/kernels/machine/isa.hpp"

namespace attn {

namespace {

// The variant, in a layer if the cell is about one.
Result<std::unique_ptr<Variant>> configured(const Registry& registry, const std::string& name, const Cell& cell,
                                            const std::shared_ptr<LayerClock>& layer_clock) {
  auto variant = registry.configure(name);
  if (!variant) return variant.refusal();
  if (Status status = (*variant)->supports(cell.problem); !status) return status.refusal();
  if (layer_clock) {
    variant = layer_around(*std::move(variant), layer_clock);
    if (Status status = (*variant)->supports(cell.problem); !status) return status.refusal();
  }
  if (cell.problem.pass == Pass::forward_backward) {
    if (Status status = (*variant)->supports_backward(cell.problem); !status)
      return refuse((*variant)->name().label() + " " + status.reason());
  }
  return variant;
}

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// Room for as many floats as the array has elements, and a dense array of its shape there.
Buffer floats(const Array& array) { return Buffer(static_cast<std::size_t>(bytes_of(DType::f32, array.size()))); }
Array like(const Array& array, const Buffer& memory) { return {DType::f32, memory.data(), array.extents()}; }

}  // namespace

Result<std::unique_ptr<CellRun>> CellRun::open(const Registry& registry, const Cell& cell, bool pin) {
  if (!cell.isa.empty()) {
    if (Status forced = kernels::force_isa(cell.isa); !forced) return forced.refusal();
  }
  std::unique_ptr<CellRun> run(new CellRun(cell));
  auto variant = configured(registry, cell.variant, cell, run->layer_clock_);
  if (!variant) return variant.refusal();
  auto input = parse_input(cell.input);
  if (!input) return input.refusal();
  auto tensors = (*input)->make(cell.problem, cell.seed);
  if (!tensors) return tensors.refusal();

  run->note_ = (*input)->note(cell.problem);
  run->tensors_ = std::make_shared<const Tensors>(*std::move(tensors));
  run->arena_ = std::make_shared<const Arena>(cell.threads, pin ? Pinning::cores : Pinning::none);
  run->arena_->execute([&] { parallel_tasks(cell.threads, [](index_t, int) {}); });  // threads and their stacks exist from here on
  run->input_ = *std::move(input);
  if (Status planned = run->plan(*std::move(variant)); !planned) return planned.refusal();
  return run;
}

Result<std::unique_ptr<CellRun>> CellRun::beside(const Registry& registry, const std::string& variant) const {
  std::unique_ptr<CellRun> run(new CellRun(cell_));
  auto other = configured(registry, variant, cell_, run->layer_clock_);
  if (!other) return other.refusal();
  run->cell_.variant = variant;
  run->note_ = note_;
  run->input_ = input_;
  run->tensors_ = tensors_;
  run->arena_ = arena_;
  if (Status planned = run->plan(*std::move(other)); !planned) return planned.refusal();
  return run;
}

Status CellRun::plan(std::unique_ptr<Variant> variant) {
  variant_ = std::move(variant);
  auto named = input_->make_named(cell_.problem, variant_->inputs(cell_.problem), cell_.seed);
  if (!named) return named.refusal();
  named_ = *std::move(named);
  output_memory_ = output_buffer(cell_.problem);
  const View<float, 4> output = output_view(cell_.problem, output_memory_);
  std::fill_n(output.data_handle(), output.size(), nan);
  arrays_ = {.q = tensors_->q, .k = tensors_->k, .v = tensors_->v, .out = output, .more = named_.arrays};
  planned_.emplace(*variant_, cell_.problem, cell_.threads);
  if (cell_.problem.pass == Pass::forward_backward)
    gradients_ = std::make_unique<GivenGradients>(*this, variant_->parameters(cell_.problem));
  return {};
}

CellRun::GivenGradients::GivenGradients(const CellRun& run, const Parameters& specs)
    : d_out(floats(run.arrays_.out)),
      d_q(floats(run.arrays_.q)),
      d_k(floats(run.arrays_.k)),
      d_v(floats(run.arrays_.v)),
      d_parameters(specs),
      arrays{{.d_out = like(run.arrays_.out, d_out),
              .d_q = like(run.arrays_.q, d_q),
              .d_k = like(run.arrays_.k, d_k),
              .d_v = like(run.arrays_.v, d_v)},
             d_parameters} {
  Rng(run.cell_.seed, "gradient of the output").normals({d_out.as<float>(), static_cast<std::size_t>(run.arrays_.out.size())});
  for (const Array& gradient : {arrays.d_q, arrays.d_k, arrays.d_v})
    std::fill_n(gradient.f32_out().data_handle(), gradient.size(), nan);
}

ParameterSet<float> CellRun::fitted() const {
  ParameterSet<float> set;
  arena_->execute([&] { set = fit_parameters(variant().parameters(problem()), arrays_); });
  return set;
}

void CellRun::run() const {
  arena_->execute([&] {
    planned_->run(arrays_);
    if (gradients_) planned_->backward(arrays_, gradients_->arrays);
  });
}

Cost CellRun::cost() const {
  Cost cost = variant_->cost(cell_.problem);
  if (!gradients_) return cost;
  const Cost back = variant_->backward_cost(cell_.problem);
  cost.flops += back.flops;
  cost.bytes += back.bytes;
  cost.exps += back.exps;
  return cost;
}

void CellRun::run(const Arrays& arrays, const ParameterSet<float>& parameters) const {
  arena_->execute([&] { planned_->run(arrays, parameters); });
}

}  // namespace attn
