// Means of values by e^(key + bias), channel by channel, of tokens that come one by one; a bias comes to the last few alone. Each
// token is folded into sums once no bias can come to it.
#pragma once

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/state.hpp"
#include "attn/exec/workspace.hpp"

namespace attn::kernels {

class ExpMean {
 public:
  // Biases come to the last `window` tokens, 0 or more. head_dim and value_dim are equal. `shared`: channel 0 is the key of all channels.
  ExpMean(const Problem& p, index_t window, bool shared, WorkspacePlan& workspace);

  // Of a sequence: sums, rest [kv_heads, 2 D], reference [kv_heads, D]; k, v [kv_heads, window, D], the key of position p in row p % window.
  static StateSpec state(const Problem& p, index_t window);
  void absorb(const FloatArrays& tokens, const State& state, const Workspace& workspace) const;
  // The means, [B,H,1,D]. biases(head): of a query head, `window` numbers, the last of them for the last token; null: zeros.
  using Biases = FunctionRef<const float*(index_t head)>;
  void answer(const State& state, const View<float, 4>& out, const Workspace& workspace, Biases biases) const;

 private:
  struct Tokens;
  void fold(const float* key, const float* value, const Tokens& tokens, float* scratch) const;

  Problem p_;
  index_t window_;
  bool shared_;
  Booking<float> scratch_;
};

}  // namespace attn::kernels
