// One cell in this process, from its name to its output: the path that the sweep's workers and attn_apply share.
#pragma once

#include <memory>
#include <optional>

#include "attn/cell/cell.hpp"
#include "attn/exec/arena.hpp"
#include "attn/inputs/input.hpp"
#include "attn/layer/layer_variant.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// A variant planned for a problem, with what it needs to run.
class PlannedVariant {
 public:
  PlannedVariant(std::unique_ptr<Variant> variant, const Problem& p, int threads, Purpose purpose = Purpose::inference)
      : variant_(std::move(variant)), booked_(threads, purpose), plan_(variant_->plan(p, booked_)) {}

  // Hands over the parameters and grants the workspace. Before run(), once.
  void equip(ParameterSet<float> parameters);
  // Inside the arena of as many threads.
  void run(const FloatInputs& in, Output out) const { run(in, parameters_, out); }
  void run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out) const;
  // After run(), planned for training.
  void backward(const FloatInputs& in, const BackwardArrays& arrays) const {
    plan_->backward(in, parameters_, arrays, *workspace_);
  }

  const Variant& variant() const { return *variant_; }
  const ParameterSet<float>& parameters() const { return parameters_; }
  index_t workspace_bytes() const { return booked_.bytes(); }

 private:
  std::unique_ptr<Variant> variant_;
  ParameterSet<float> parameters_;
  WorkspacePlan booked_;
  std::unique_ptr<Plan> plan_;
  mutable std::optional<Workspace> workspace_;  // scratch: what it holds between runs is nobody's
};

class CellRun {
 public:
  // Forces the instruction set, configures the variant, makes Q, K and V, starts the threads, plans, and fills the output
  // with NaN: an element that the fast path forgets cannot pass for a result.
  static Result<std::unique_ptr<CellRun>> open(const Registry& registry, const Cell& cell, bool pin);

  // Another variant on this cell's tensors, seed and threads, with an output of its own.
  Result<std::unique_ptr<CellRun>> beside(const Registry& registry, const std::string& variant) const;

  // The parameters that the variant fits to these tensors, for make_parameters; mostly none.
  ParameterSet<float> fitted() const;

  void equip(ParameterSet<float> parameters) { planned_->equip(std::move(parameters)); }

  // The fast path into output(), by the parameters handed over; with Pass::forward_backward, gradients() too.
  void run() const;
  // The same plan on other tensors of the same shapes.
  void run(const FloatInputs& in, const ParameterSet<float>& parameters, Output out) const;

  const Variant& variant() const { return planned_->variant(); }
  const Problem& problem() const { return cell_.problem; }
  std::uint64_t seed() const { return cell_.seed; }
  const std::string& note() const { return note_; }
  const Tensors& tensors() const { return *tensors_; }
  FloatInputs inputs() const { return {tensors_->q, tensors_->k, tensors_->v}; }
  const ParameterSet<float>& parameters() const { return planned_->parameters(); }
  Output output() const { return output_; }
  // With Pass::forward_backward: of normally distributed gradients of the output.
  const BackwardArrays& gradients() const { return gradients_->arrays; }
  bool trains() const { return gradients_ != nullptr; }
  // What the runs so far took; null unless the scope is the layer.
  const LayerClock* layer_clock() const { return layer_clock_.get(); }
  Cost cost() const;
  const Arena& arena() const { return *arena_; }
  index_t workspace_bytes() const { return planned_->workspace_bytes(); }

 private:
  explicit CellRun(const Cell& cell)
      : cell_(cell), layer_clock_(cell.scope == Scope::layer ? std::make_shared<LayerClock>() : nullptr) {}
  void plan(std::unique_ptr<Variant> variant);

  Cell cell_;
  std::shared_ptr<LayerClock> layer_clock_;
  std::string note_;
  std::shared_ptr<const Tensors> tensors_;
  std::shared_ptr<const Arena> arena_;
  Buffer output_memory_;
  Output output_;
  struct Gradients {
    Buffer d_out, d_q, d_k, d_v;
    ParameterGradients d_parameters;
    BackwardArrays arrays;
    Gradients(const CellRun& run, const Parameters& specs);
  };

  std::optional<PlannedVariant> planned_;
  std::unique_ptr<Gradients> gradients_;
};

// Memory for an output of this problem.
Buffer output_buffer(const Problem& p);
Output output_view(const Problem& p, const Buffer& memory);

}  // namespace attn
