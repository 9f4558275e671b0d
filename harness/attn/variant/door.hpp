// Where stored numbers become floats for plans that read no other.
#pragma once

#include <array>
#include <span>

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/exec/workspace.hpp"

namespace attn {

// What a plan reads as it is stored.
struct TakenTypes {
  std::span<const DType> q, kv;
};

// Of Q, K and V (x and V, x) those whose type the plan behind it does not take are copied as floats into the plan's workspace, by each run,
// in parallel: the copy is part of what a run costs, in time and in memory.
class Door {
 public:
  // `folds`: the plan folds a decode's tokens into a state, so that they come in parts of at most `most_at_once`. These are copied whatever
  // it takes, and for training everything: steps and backward passes read floats.
  Door(const Problem& p, const TakenTypes& taken, bool reads_k, bool reads_v, bool folds, WorkspacePlan& plan);

  static constexpr index_t most_at_once = 1024;

  bool copies() const { return copied_[0] || copied_[1] || copied_[2]; }
  // The problem as the plan behind it sees it.
  const Problem& inside() const { return inside_; }
  static Problem inside(Problem p, const TakenTypes& taken, bool folds);

  // Inside an arena. What is not read becomes empty.
  Arrays widened(const Arrays& given, const Workspace& workspace) const;
  // After that, with the same arrays and workspace.
  Arrays as_widened(const Arrays& given, const Workspace& workspace) const;

 private:
  Array copy_of(const Array& given, std::size_t which, const Workspace& workspace) const;

  Problem inside_;
  std::array<bool, 3> copied_{}, read_;
  std::array<Booking<float>, 3> memory_;
};

}  // namespace attn
