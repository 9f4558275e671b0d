// One rank's part of a planned computation: its arrays, and its share of every run.
#pragma once

#include <memory>
#include <string>

#include "attn/exec/arena.hpp"
#include "attn/ranks/scheme.hpp"

namespace attn {

// What is measured of a run: all of it, or one of its two parts.
enum class Timed { whole, arithmetic, messages };

class Member {
 public:
  // Books in `workspace`; allocates nothing yet.
  Member(const SchemeKind& kind, const Variant& variant, const Problem& p, Communicator& ranks, WorkspacePlan& workspace);

  // What this rank believes that all compute: to be compared with what others believe.
  std::string belief() const;
  const Problem& problem() const { return problem_; }
  Holding holding(int rank) const { return scheme_->holding(rank); }
  ParameterSet<float> share(const ParameterSet<float>& whole, int rank) const { return scheme_->share(whole, rank); }

  // The bytes in which a rank's rows of Q, K and V are dealt out, and its outputs collected.
  index_t dealt_bytes(int rank) const;
  index_t output_bytes(int rank) const;
  void pack_inputs(const Arrays& whole, int rank, std::byte* to) const;
  void unpack_output(const std::byte* from, const Arrays& whole, int rank) const;
  // Of this rank: allocates its arrays at first, and fills its outputs with NaN.
  void take_inputs(const std::byte* from, ParameterSet<float> parameters);
  void pack_output(std::byte* to) const;

  // Inside an arena, with all ranks.
  void run(Workspace& workspace, Timed what) const;
  // So many runs after a common start: this rank's seconds.
  double timed(Workspace& workspace, Timed what, index_t times) const;
  // One run with its meters on.
  void first_run(Workspace& workspace);

  Traffic counted() const { return counted_; }  // in the first run
  Traffic formula() const { return scheme_->traffic(); }
  index_t peak_bytes() const { return peak_bytes_; }
  index_t array_bytes() const { return static_cast<index_t>(kv_memory_.bytes() + q_memory_.bytes() + out_memory_.bytes()); }

 private:
  void allocate();

  const Variant& variant_;
  Problem problem_;
  Communicator& ranks_;
  std::unique_ptr<Scheme> scheme_;
  ParameterSet<float> parameters_;
  Buffer kv_memory_, q_memory_, out_memory_;
  Own own_;
  Traffic counted_;
  index_t peak_bytes_ = -1;
};

}  // namespace attn
