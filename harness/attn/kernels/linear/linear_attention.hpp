// Attention whose weights factor through features: w_ij = phi_q(q_i) . phi_k(k_j), out_i = sum_j w_ij v_j / n_i with
// n_i = guard(sum_j w_ij). Cost is linear in the length: the keys are folded into a state S = phi_k(K)^T V, z = phi_k(K)^T 1.
// Features live only as panels of some tokens, which the caller's maps fill.
#pragma once

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/state.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/machine/dtypes.hpp"

namespace attn::kernels {

// Tokens to be turned into rows of features: of one head, the first of them at this key position; or `across` heads, one of each from
// `head` on, all at this position. `head` is a kv head for keys.
struct TokenPanel {
  index_t batch, head, position, count;
  Rows from;
  Into to;
  // Keys write a number for each token here; queries read the largest one among the keys that they see.
  float* peak;
  // Queries, when not causal: the sum of the features of all keys.
  const float* total;
  int worker;
  bool across = false;

  index_t head_of(index_t row) const { return across ? head + row : head; }
  index_t position_of(index_t row) const { return across ? position : position + row; }

  // Calls f for the rows of each head: all, or of tokens across heads one at a time. For maps that have a table a head.
  template <class F>
  void by_head(F f) const {
    if (!across) return f(*this);
    for (index_t i = 0; i < count; ++i) {
      TokenPanel one = *this;
      one.head = head + i, one.count = 1, one.across = false;
      one.from.data += i * from.stride, one.to.data += i * to.stride;
      if (peak != nullptr) one.peak += i;
      f(one);
    }
  }
};

class LinearAttention {
 public:
  using FeatureMap = FunctionRef<void(const TokenPanel&)>;
  using Denominators = void (*)(index_t count, float* n);  // n_i becomes 1 / guard(n_i)
  // Writes the gates of `count` tokens: g_t in S_t = g_t S_(t-1) + (1 - g_t) phi_k(k_t) v_t, and so for z; and 1 - g_t, which no
  // subtraction gives where g_t is near 1. Causal only, one kv head for each head.
  struct Gates {
    index_t batch, head, position, count;
    Rows keys;
    float *gate, *rest;
  };
  using GateMap = FunctionRef<void(const Gates&)>;

  static constexpr index_t max_panel = 64;  // tokens

  // No denominators: null. `peaks`: the maps use TokenPanel::peak.
  LinearAttention(const Problem& p, index_t features, Denominators denominators, WorkspacePlan& workspace, bool peaks = false);

  // Number types of whole sequences, which are widened panel by panel; tokens of a state's steps are floats.
  static constexpr const auto& dtypes = engine_dtypes;        // of Q
  static constexpr const auto& kv_dtypes = engine_kv_dtypes;  // of K and V

  struct Views {
    View<const float, 4> q, k, v;
    View<float, 4> out;
    Array stored_q, stored_k, stored_v;  // what is stored otherwise, in the place of the view above
    NamedArrays before;  // of causal runs: the tensors of a state() of all tokens before these, as before.NAME; or none

    Views(const View<const float, 4>& q_, const View<const float, 4>& k_, const View<const float, 4>& v_,
          const View<float, 4>& out_)
        : q(q_), k(k_), v(v_), out(out_) {}
    // NOLINTNEXTLINE(google-explicit-constructor): the engine's door
    Views(const Arrays& a)
        : q(floats(a.q)),
          k(floats(a.k)),
          v(floats(a.v)),
          out(a.out.f32_out()),
          stored_q(others(a.q)),
          stored_k(others(a.k)),
          stored_v(others(a.v)),
          before(a.more) {}

   private:
    static View<const float, 4> floats(const Array& x) { return x.dtype() == DType::f32 ? x.f32() : View<const float, 4>(); }
    static Array others(const Array& x) { return x.dtype() == DType::f32 ? Array() : x; }
  };
  void run(const Views& arrays, const Workspace& workspace, FeatureMap query, FeatureMap key, const GateMap* gate = nullptr) const;

  // The same in steps, for a causal problem. The state of a sequence: sums [kv_heads, features, value_dim] is S, total
  // [kv_heads, features] is z; peak [kv_heads] where the maps use it; decay [kv_heads], the product of all gates, where there are gates.
  enum class Kind { plain, peaks, gated };
  static StateSpec state(const Problem& p, index_t features, Kind kind = Kind::plain);
  // Folds in the tokens that follow those of the state, which the caller then advances. A single token may come across heads, here and
  // below.
  void absorb(const Views& tokens, const State& state, const Workspace& workspace, FeatureMap key,
              const GateMap* gate = nullptr) const;
  // Outputs for queries at the last position.
  void answer(const Views& queries, const State& state, const Workspace& workspace, FeatureMap query) const;
  // Both of one token, to the same bits, with one pass over the state.
  void step(const Views& token, const State& state, const Workspace& workspace, FeatureMap query, FeatureMap key,
            const GateMap* gate = nullptr) const;
  // `into` holds the tokens before those of `later`, and both together afterwards.
  static void merge(State& into, const State& later);

 private:
  // S, z, the peak and the product of gates of some keys of one head; null where a state has none.
  struct Sums {
    float* sums;
    float* total;
    float* peak;
    float* decay;
  };
  static Sums sums_of(const State& state, index_t batch, index_t head);
  static Sums sums_before(const NamedArrays& before, index_t batch, index_t head);
  struct Scratch;
  class Run;
  struct StateViews;
  class Token;
  // A token is taken up where there is a map of keys, and answered where there is one of queries.
  void take_token(const Views& x, const State& state, const Workspace& workspace, const FeatureMap* query, const FeatureMap* key,
                  const GateMap* gate) const;

  index_t sums_size() const { return stride_ * (p_.value_dim + 1) + 16; }

  Problem p_;
  index_t features_;
  index_t stride_;        // features, to a multiple of 16
  index_t panel_;         // tokens
  index_t segments_ = 1;  // of each head's tokens, when heads alone do not fill the threads
  Denominators denominators_;
  bool peaks_;
  Booking<float> scratch_;  // of a worker: its state and panels
  Booking<float> states_;   // of the segments
  Booking<float> token_;    // of a worker, when decoding: a token's features in some heads
  Booking<float> widened_;  // of a worker, where numbers are stored otherwise: panels of queries, keys and values
};

template <auto guard>
void reciprocals(index_t count, float* n) {
  for (index_t i = 0; i < count; ++i) n[i] = 1 / guard(n[i]);
}

}  // namespace attn::kernels
