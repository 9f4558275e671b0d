// One cell in this process, from its name to its output: the path that the sweep's workers and attn_apply share.
#pragma once

#include <memory>
#include <optional>

#include "attn/exec/arena.hpp"
#include "attn/inputs/input.hpp"
#include "attn/measure/cell.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

class CellRun {
 public:
  // Forces the instruction set, configures the variant, makes Q, K and V, starts the threads, plans, and fills the output
  // with NaN: an element that the fast path forgets cannot pass for a result.
  static Result<std::unique_ptr<CellRun>> open(const Registry& registry, const Cell& cell, bool pin);

  // Hands over the parameters and grants the workspace. Before run(), once.
  void equip(ParameterSet<float> parameters);

  // The fast path into output(), by the parameters handed over.
  void run() const { run(inputs(), parameters_, output_); }
  // The same plan on other tensors of the same shapes.
  void run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out) const;

  const Variant& variant() const { return *variant_; }
  const Problem& problem() const { return cell_.problem; }
  std::uint64_t seed() const { return cell_.seed; }
  const std::string& note() const { return note_; }
  const Tensors& tensors() const { return *tensors_; }
  FloatInputs inputs() const { return {tensors_->q, tensors_->k, tensors_->v}; }
  const ParameterSet<float>& parameters() const { return parameters_; }
  Output output() const { return output_; }
  const Arena& arena() const { return arena_; }
  index_t workspace_bytes() const { return booked_.bytes(); }

 private:
  CellRun(const Cell& cell, bool pin)
      : cell_(cell), arena_(cell.threads, pin ? Pinning::cores : Pinning::none), booked_(cell.threads) {}

  Cell cell_;
  std::unique_ptr<Variant> variant_;
  std::string note_;
  std::optional<Tensors> tensors_;
  Arena arena_;
  Buffer output_memory_;
  Output output_;
  ParameterSet<float> parameters_;
  WorkspacePlan booked_;
  std::unique_ptr<Plan> plan_;
  mutable std::optional<Workspace> workspace_;  // scratch: what it holds between runs is nobody's
};

// Memory for an output of this problem.
Buffer output_buffer(const Problem& p);
Output output_view(const Problem& p, const Buffer& memory);

}  // namespace attn
