// Recurrent layers: N vectors to N vectors, each head by itself. The input products of a panel of tokens are made at once; the rest
// goes token by token, so sequences and heads are all there is to run in parallel. Sequences of a head take a step together, in one
// product: alone, each would read all of U for it.
#pragma once

#include "attn/core/problem.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/state.hpp"
#include "attn/exec/workspace.hpp"

namespace attn::kernels {

class Recurrence {
 public:
  // `gates` vectors of D numbers are made of x_t and of the state; the state is `state` vectors, of which the first is h, the output.
  Recurrence(const Problem& p, index_t gates, index_t state, WorkspacePlan& workspace);

  struct Arrays {
    View<const float, 4> x;     // [B,H,N,D]
    View<float, 4> out;         // as x
    View<const float, 3> w, u;  // [H,D,gates D]
    const float *b, *c;         // [H,gates D]
  };
  // step(x, own, state): x = x_t W + b, own = h U + c, which it may overwrite; makes the next state, of the first zeros.
  using Step = FunctionRef<void(const float* x, float* own, float* state)>;
  void run(const Arrays& arrays, const Workspace& workspace, Step step) const;

  // In steps: the vectors of the state, [H,state,D].
  static StateSpec state(const Problem& p, index_t state) { return {{{.name = "state", .extents = {p.heads, state, p.head_dim}}}}; }
  // `arrays.x` has the new tokens; there is no output.
  void absorb(const Arrays& arrays, const State& state, const Workspace& workspace, Step step) const;
  static void answer(const State& state, const View<float, 4>& out);

 private:
  // Some sequences of a head; their states lie `stride` floats apart.
  struct Lane {
    index_t batch, sequences, head;
    float* state;
    index_t stride;
  };
  // Calls f(lane, worker); lanes have no state yet.
  template <class F>
  void each_lane(F f) const;
  // Tokens of the lane through its states; `out` may have no rows.
  void advance(const Arrays& arrays, const Lane& lane, const Workspace& workspace, int worker, Step step) const;

  Problem p_;
  index_t wide_, state_;  // floats
  index_t together_;      // sequences of a lane, at most
  index_t panel_;         // tokens
  Booking<float> scratch_;
};

}  // namespace attn::kernels
