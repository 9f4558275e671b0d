// What plans share that compute in processes of their own: they run forward, and answer a decode by a run over the state's tokens.
#pragma once

#include "attn/core/assert.hpp"
#include "attn/exec/state.hpp"
#include "attn/variant/registry.hpp"
#include "attn/variant/remote.hpp"

namespace attn {

class RemotePlan : public Plan, public Remote {
 public:
  void backward(const Arrays&, const ParameterSet<float>&, const Gradients&, Workspace&) const override {
    ATTN_ASSERT(false && "supports_backward() refuses");
  }
  void absorb(const Arrays& tokens, const ParameterSet<float>&, State& state, Workspace&) const override { state.append(tokens); }
  void answer(const Arrays& queries, const ParameterSet<float>& parameters, const State& state,
              Workspace& workspace) const override {
    Arrays all = state.asked_by(queries);
    all.lengths = {};
    if (state.find("k") != nullptr) all.k = all.k.first(2, state.length());
    if (state.find("v") != nullptr) all.v = all.v.first(2, state.length());
    run(all, parameters, workspace);
  }
  // Its figures are of the last run, which is const to whoever calls it.
  Remote* remote() const override { return const_cast<RemotePlan*>(this); }
};

}  // namespace attn
