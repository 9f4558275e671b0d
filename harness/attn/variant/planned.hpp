// A variant planned for one problem, with what it needs to run: the one way from a variant to its output.
#pragma once

#include <memory>
#include <optional>

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

class Planned {
 public:
  // The variant supports the problem; with Pass::forward_backward, its backward pass too. Books, allocates nothing.
  Planned(const Variant& variant, const Problem& p, int threads) : booked_(threads, p.pass), plan_(variant.plan(p, booked_)) {}

  // Hands over the parameters and grants the workspace: before run().
  void equip(ParameterSet<float> parameters, Workspace::Mode mode = Workspace::Mode::plain);
  // Another workspace in the place of the one that runs have used.
  void grant(Workspace::Mode mode) { workspace_.emplace(booked_, mode); }

  // Inside an arena of as many threads.
  void run(const Arrays& arrays) const { run(arrays, parameters_); }
  void run(const Arena& arena, const Arrays& arrays) const {
    arena.execute([&] { run(arrays); });
  }
  void run(const Arrays& arrays, const ParameterSet<float>& parameters) const { plan_->run(arrays, parameters, *workspace_); }
  // After run() with the same arrays, planned for both passes.
  void backward(const Arrays& arrays, const Gradients& gradients) const {
    plan_->backward(arrays, parameters_, gradients, *workspace_);
  }

  // Planned for decoding: see Plan.
  void absorb(const Arrays& tokens, State& state) const { absorb(tokens, parameters_, state); }
  void absorb(const Arrays& tokens, const ParameterSet<float>& parameters, State& state) const {
    plan_->absorb(tokens, parameters, state, *workspace_);
  }
  void answer(const Arrays& queries, const State& state) const { answer(queries, parameters_, state); }
  void answer(const Arrays& queries, const ParameterSet<float>& parameters, const State& state) const {
    plan_->answer(queries, parameters, state, *workspace_);
  }
  void merge(State& into, const State& later) const { plan_->merge(into, later); }

  Remote* remote() const { return plan_->remote(); }  // of a guest's plan, else null
  const ParameterSet<float>& parameters() const { return parameters_; }
  const Workspace& workspace() const { return *workspace_; }
  index_t workspace_bytes() const { return booked_.bytes(); }

 private:
  ParameterSet<float> parameters_;
  WorkspacePlan booked_;
  std::unique_ptr<Plan> plan_;
  mutable std::optional<Workspace> workspace_;  // scratch: what it holds between runs is nobody's
};

// Memory for an output of this problem.
Buffer output_buffer(const Problem& p);
View<float, 4> output_view(const Problem& p, const Buffer& memory);

}  // namespace attn
