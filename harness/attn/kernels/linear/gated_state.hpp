// Causal mixers with a state S [head_dim, value_dim] that gates fade and tokens write to, answered by out_t = q_t^T S_t:
//   add:      S_t = g_t S_(t-1) + k_t v_t^T
//   delta:    S_t = H + k_t u_t^T,  H = g_t S_(t-1),  u_t = beta_t (v_t - H^T k_t)
//   rank_one: S_t = g_t S_(t-1) + b_t (S_(t-1)^T a_t)^T + k_t v_t^T
// with g_t a number, or one for each channel of the keys. Tokens are taken in panels: within one, products of gates and, where a token
// reads the state, forward substitution; between panels the state. The chunk form of Yang et al. 2024, arXiv:2406.06484, with one
// right-hand side in the place of two.
// Query heads that share a kv head ask one state. Columns of the state, channels of the values, never meet: where heads do not fill the
// threads they are split.
#pragma once

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/state.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/linear/gated_panel.hpp"

namespace attn::kernels {

class GatedState {
 public:
  enum class Gate { scalar, vector };
  enum class Write { add, delta, rank_one };
  struct Form {
    Gate gate = Gate::scalar;
    Write write = Write::add;
    bool own_token = false;  // the query of a token weighs its own value more: OwnMap
  };

  // Tokens of a kv head, from row `row` of the arrays on. The map fills what the form has, and gives the keys that are folded in: `keys`
  // as they are in the arrays, or what it wrote to `key`.
  struct Tokens {
    index_t batch, head, row, count;
    Rows keys;
    Into key;         // [count, head_dim]
    Into read, add;   // likewise, rank_one: a and b
    Into gate;        // vector: g, [count, head_dim]
    float* log_gate;  // scalar: ln g <= 0
    float* beta;      // delta
    int worker;
  };
  // Rows of a query head: the map gives their factors.
  struct Queries {
    index_t batch, head, count;
    Rows rows;
    float* factor;
  };
  // weight[i]: added to the weight of value i for query i, before the query's factor.
  struct Own {
    index_t head, kv_head, count;
    Rows queries, keys;
    float* weight;
  };
  struct Maps {
    FunctionRef<Rows(const Tokens&)> tokens;
    FunctionRef<void(const Queries&)> queries;
    FunctionRef<void(const Own&)> own;
  };

  GatedState(const Problem& p, const Form& form, WorkspacePlan& workspace);

  void run(const Arrays& arrays, const Workspace& workspace, const Maps& maps) const;

  // In steps. sums [kv_heads, head_dim, value_dim] is S; decay, of states that merge, the product of the gates of its tokens; key and value
  // the last token's, where the form needs them.
  static StateSpec state(const Problem& p, const Form& form);
  void absorb(const Arrays& tokens, const State& state, const Workspace& workspace, const Maps& maps) const;
  void answer(const Arrays& queries, const State& state, const Workspace& workspace, const Maps& maps) const;
  // Of form add: `into` holds the tokens before those of `later`, and both together afterwards.
  static void merge(State& into, const State& later);

  static constexpr auto no_own = [](const Own&) {};

 private:
  struct Scratch;
  class Run;

  Problem p_;
  Form form_;
  index_t stride_;     // head_dim, to a multiple of 16
  index_t parts_ = 1;  // of the columns
  index_t columns_;    // of a part, the last one may have fewer
  Booking<float> scratch_;
};

}  // namespace attn::kernels
