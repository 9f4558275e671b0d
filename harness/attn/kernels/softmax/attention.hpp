// Softmax attention over any set of keys: the softmax engine (engine.hpp), or where a few queries meet a long cache the rows engine
// (rows/rows_engine.hpp), behind one door. What a variant that is a pattern of softmax attention plans and runs; schedules are those
// of keys.hpp.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "attn/kernels/machine/compute.hpp"
#include "attn/kernels/machine/dtypes.hpp"
#include "attn/kernels/rows/rows_engine.hpp"
#include "attn/kernels/softmax/engine.hpp"

namespace attn::kernels {

class Attention {
 public:
  static constexpr bool reads_layouts = true;                                          // Arrays::lengths and Arrays::layout
  static constexpr const auto& dtypes = engine_dtypes;        // of Q
  static constexpr const auto& kv_dtypes = engine_kv_dtypes;  // of K and V
  static Compute compute(const Problem& p) { return compute_of(p); }

  // head_dim and value_dim from 1 to 256.
  Attention(const Problem&, const EngineOptions&, WorkspacePlan&);

  // Few queries that share no list of keys (QueryBlocks::aligned, QueryBlocks::classes) may come one by one.
  void run(const EngineArrays&, const Workspace&, KeySchedule) const;
  // As SoftmaxEngine has them. With QueryBlocks::listed:
  void run(const EngineArrays&, const Workspace&, RowSchedule, KeySchedule) const;
  void backward(const EngineArrays&, const EngineGradients&, const Workspace&, KeySchedule) const;
  void backward(const EngineArrays&, const EngineGradients&, const Workspace&, RowSchedule, KeySchedule) const;
  void leave_out(std::span<const std::int32_t> rows, const Workspace&) const;

 private:
  std::optional<SoftmaxEngine> blocks_;
  std::optional<RowsEngine> rows_;
};

}  // namespace attn::kernels
