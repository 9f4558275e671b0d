// Softmax attention whose logits are not plain products (EngineOptions::softcap, EngineOptions::biased): in floats, whatever Q, K and V are
// stored as. What a page plans and runs as it would an Attention.
#pragma once

#include "attn/kernels/machine/compute.hpp"
#include "attn/kernels/machine/dtypes.hpp"
#include "attn/kernels/softmax/attention.hpp"

namespace attn::kernels {

class ScoredAttention : public Attention {
 public:
  static constexpr bool reads_layouts = true;
  static constexpr const auto& dtypes = engine_dtypes;        // of Q
  static constexpr const auto& kv_dtypes = engine_kv_dtypes;  // of K and V
  static Compute compute(const Problem&) { return Compute::f32; }

  ScoredAttention(const Problem& p, EngineOptions options, WorkspacePlan& plan) : Attention(p, in_floats(options), plan) {}

 private:
  static EngineOptions in_floats(EngineOptions options) {
    options.compute = Compute::f32;
    return options;
  }
};

}  // namespace attn::kernels
