#include "attn/measure/cell_run.hpp"

#include <algorithm>
#include <limits>

#include "attn/kernels/isa.hpp"

namespace attn {

Result<std::unique_ptr<CellRun>> CellRun::open(const Registry& registry, const Cell& cell, bool pin) {
  if (!cell.isa.empty()) {
    if (Status forced = kernels::force_isa(cell.isa); !forced) return forced.refusal();
  }
  auto variant = registry.configure(cell.variant);
  if (!variant) return variant.refusal();
  const Problem& p = cell.problem;
  if (Status status = (*variant)->supports(p); !status) return status.refusal();
  const auto input = parse_input(cell.input);
  if (!input) return input.refusal();
  auto tensors = (*input)->make(p, cell.seed);
  if (!tensors) return tensors.refusal();

  std::unique_ptr<CellRun> run(new CellRun(cell, pin));
  run->variant_ = *std::move(variant);
  run->note_ = (*input)->note(p);
  run->tensors_ = *std::move(tensors);
  run->arena_.execute([&] { parallel_tasks(cell.threads, [](index_t, int) {}); });  // threads and their stacks exist from here on
  run->output_memory_ = output_buffer(p);
  run->output_ = output_view(p, run->output_memory_);
  std::fill_n(run->output_.data_handle(), run->output_.size(), std::numeric_limits<float>::quiet_NaN());
  run->plan_ = run->variant_->plan(p, run->booked_);
  return run;
}

void CellRun::equip(ParameterSet<float> parameters) {
  ATTN_ASSERT(!workspace_);
  parameters_ = std::move(parameters);
  workspace_.emplace(booked_);
}

void CellRun::run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out) const {
  arena_.execute([&] { plan_->run(in, parameters, out, *workspace_); });
}

Buffer output_buffer(const Problem& p) {
  return Buffer(static_cast<std::size_t>(p.batch * p.heads * p.q_len * p.value_dim) * sizeof(float));
}

Output output_view(const Problem& p, const Buffer& memory) {
  return {memory.as<float>(), {p.batch, p.heads, p.q_len, p.value_dim}};
}

}  // namespace attn
