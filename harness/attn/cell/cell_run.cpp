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

Buffer floats(index_t count) { return Buffer(static_cast<std::size_t>(count) * sizeof(float)); }

}  // namespace

void PlannedVariant::equip(ParameterSet<float> parameters) {
  ATTN_ASSERT(!workspace_);
  parameters_ = std::move(parameters);
  workspace_.emplace(booked_);
}

void PlannedVariant::run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out) const {
  plan_->run(in, parameters, out, *workspace_);
}

Result<std::unique_ptr<CellRun>> CellRun::open(const Registry& registry, const Cell& cell, bool pin) {
  if (!cell.isa.empty()) {
    if (Status forced = kernels::force_isa(cell.isa); !forced) return forced.refusal();
  }
  std::unique_ptr<CellRun> run(new CellRun(cell));
  auto variant = configured(registry, cell.variant, cell, run->layer_clock_);
  if (!variant) return variant.refusal();
  const auto input = parse_input(cell.input);
  if (!input) return input.refusal();
  auto tensors = (*input)->make(cell.problem, cell.seed);
  if (!tensors) return tensors.refusal();

  run->note_ = (*input)->note(cell.problem);
  run->tensors_ = std::make_shared<const Tensors>(*std::move(tensors));
  run->arena_ = std::make_shared<const Arena>(cell.threads, pin ? Pinning::cores : Pinning::none);
  run->arena_->execute([&] { parallel_tasks(cell.threads, [](index_t, int) {}); });  // threads and their stacks exist from here on
  run->plan(*std::move(variant));
  return run;
}

Result<std::unique_ptr<CellRun>> CellRun::beside(const Registry& registry, const std::string& variant) const {
  std::unique_ptr<CellRun> run(new CellRun(cell_));
  auto other = configured(registry, variant, cell_, run->layer_clock_);
  if (!other) return other.refusal();
  run->cell_.variant = variant;
  run->note_ = note_;
  run->tensors_ = tensors_;
  run->arena_ = arena_;
  run->plan(*std::move(other));
  return run;
}

void CellRun::plan(std::unique_ptr<Variant> variant) {
  output_memory_ = output_buffer(cell_.problem);
  output_ = output_view(cell_.problem, output_memory_);
  std::fill_n(output_.data_handle(), output_.size(), std::numeric_limits<float>::quiet_NaN());
  const bool trains = cell_.problem.pass == Pass::forward_backward;
  planned_.emplace(std::move(variant), cell_.problem, cell_.threads, trains ? Purpose::training : Purpose::inference);
  if (trains) gradients_ = std::make_unique<Gradients>(*this, planned_->variant().parameters(cell_.problem));
}

CellRun::Gradients::Gradients(const CellRun& run, const Parameters& specs)
    : d_out(floats(run.output_.size())),
      d_q(floats(run.tensors_->q.size())),
      d_k(floats(run.tensors_->k.size())),
      d_v(floats(run.tensors_->v.size())),
      d_parameters(specs),
      arrays{run.output_,
             View<float, 4>(d_out.as<float>(), run.output_.extents()),
             {d_q.as<float>(), run.tensors_->q.extents()},
             {d_k.as<float>(), run.tensors_->k.extents()},
             {d_v.as<float>(), run.tensors_->v.extents()},
             d_parameters} {
  Rng(run.cell_.seed, "gradient of the output").normals({d_out.as<float>(), static_cast<std::size_t>(run.output_.size())});
  const auto fill = [](const View<float, 4>& x) {
    std::fill_n(x.data_handle(), x.size(), std::numeric_limits<float>::quiet_NaN());
  };
  for (const auto& gradient : {arrays.d_q, arrays.d_k, arrays.d_v}) fill(gradient);
}

ParameterSet<float> CellRun::fitted() const {
  ParameterSet<float> set;
  arena_->execute([&] { set = fit_parameters(variant().parameters(problem()), inputs()); });
  return set;
}

void CellRun::run() const {
  arena_->execute([&] {
    planned_->run(inputs(), output_);
    if (gradients_) planned_->backward(inputs(), gradients_->arrays);
  });
}

Cost CellRun::cost() const {
  const Variant& variant = planned_->variant();
  Cost cost = variant.cost(cell_.problem);
  if (!gradients_) return cost;
  const Cost back = variant.backward_cost(cell_.problem);
  cost.flops += back.flops;
  cost.bytes += back.bytes;
  cost.exps += back.exps;
  return cost;
}

void CellRun::run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out) const {
  arena_->execute([&] { planned_->run(in, parameters, out); });
}

Buffer output_buffer(const Problem& p) {
  return Buffer(static_cast<std::size_t>(p.batch * p.heads * p.q_len * p.value_dim) * sizeof(float));
}

Output output_view(const Problem& p, const Buffer& memory) {
  return {memory.as<float>(), {p.batch, p.heads, p.q_len, p.value_dim}};
}

}  // namespace attn
