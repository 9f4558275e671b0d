// What a variant's page includes. A variant is a plain struct; VariantOf (erase.hpp) erases its type.
//
//   struct Local {
//     struct Options { index_t left = 128; };                                          optional
//     static OptionTable<Options> options();                                           with Options
//     static VariantInfo info();
//     static double time_exponent(const Options&);                                     optional: that of info(), where options change it
//     static Parameters parameters(const Problem&, const Options&);                    optional: drawn, or fitted to a run's inputs
//     static std::vector<InputSpec> inputs(const Problem&, const Options&);            optional: read beside q, k and v
//     static Status supports(const Problem&, const Options&);                          optional: what info() cannot say
//     static Cost cost(const Problem&, const Options&);
//     static StateSpec state(const Problem&, const Options&);                          optional: default K and V, V, or x whole
//     using Engine = kernels::Attention;                     optional: what reads Arrays::lengths and Arrays::layout, of what `run` is given,
//                                                            and takes q, k and v as they are stored
//     static constexpr bool takes_mask = true;               optional: definition and `run` add Arrays::more["mask"] to the logits where the
//                                                            problem has one, as softmax_attention and the softmax engine do
//     static constexpr std::array dtypes = {DType::f32};     optional, with Engine: number types that `run` takes, where not all of its
//     template <class T>
//     static Tensor<T> definition(const Problem&, const Options&, const Values<T>&, const ParameterSet<T>&);
//     static std::string note(const Problem&, const Options&, const FloatArrays&);     optional: of a run's inputs, for the reader
//     Local(const Problem&, const Options&, WorkspacePlan&);                           plan: choose, book, may throw
//     void run(const Arrays&, const ParameterSet<float>&, Workspace&) const;           no allocation, no throw
//     void backward(const Arrays&, const ParameterSet<float>&, const Gradients&, Workspace&) const;   optional: after a run of a
//                                                                       plan for training (WorkspacePlan::training)
//     static Status supports_backward(const Problem&, const Options&);                 optional, with backward
//     static Cost backward_cost(const Problem&, const Options&);                       optional, with backward
//     void absorb(const Arrays& tokens, const ParameterSet<float>&, const State&, Workspace&) const;   optional: in a plan for decoding
//                                                    (Pass::decode), folds tokens, at positions from state.end() on, into a state
//     void answer(const Arrays& queries, const ParameterSet<float>&, const State&, Workspace&) const;  with absorb: outputs for queries
//                                                                                        at the state's last position
//     void step(const Arrays& token, const ParameterSet<float>&, const State&, Workspace&) const;      optional, with absorb: both of one
//                                                                                        token, to the same bits, in one pass over the state
//     void merge(State& into, const State& later) const;                               optional, with absorb: a state of `into`'s tokens
//                                                                                        and of `later`'s, which follow them
//   };
//   ATTN_VARIANT(local, Local)
//
// A page that reads elements itself takes FloatArrays and FloatGradients in the place of Arrays and Gradients. It is given floats whatever
// q, k and v are stored as (attn/variant/door.hpp); so is one that takes Arrays and names no engine.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "attn/algebra/algebra.hpp"
#include "attn/core/problem.hpp"
#include "attn/core/result.hpp"
#include "attn/core/round.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/variant/options.hpp"
#include "attn/variant/parameters.hpp"
#include "attn/variant/registry.hpp"

namespace attn {

// What a definition reads. q may hold only some rows of the problem's Q: position[r] is where row r stands among
// the keys (Problem::query_position), so a definition that asks for it can be evaluated at sampled rows.
template <class T>
struct Values {
  Tensor<T> q, k, v;  // [B,H,rows,D], [B,Hk,M,D], [B,Hk,M,Dv]
  std::vector<index_t> position;
  std::map<std::string, Tensor<T>, std::less<>> more;  // what the variant declares beside them

  const Tensor<T>& x() const { return q; }  // what a mixer without queries and keys reads
  const Tensor<T>& operator[](std::string_view name) const { return more.find(name)->second; }
};

// The mask of a definition: true where allowed(i, j), or allowed(head, i, j), and, for causal problems, j <= i.
// [rows, kv_len] or [heads, rows, kv_len].
template <class T, class F>
Mask allowed_pairs(const Problem& p, const Values<T>& in, F allowed) {
  const auto rows = static_cast<index_t>(in.position.size());
  const auto position = [&](index_t row) { return in.position[static_cast<std::size_t>(row)]; };
  const auto visible = [&](index_t i, index_t j) { return !p.causal || j <= i; };
  if constexpr (std::is_invocable_v<F, index_t, index_t>) {
    return mask({rows, p.kv_len}, [&](index_t row, index_t j) { return visible(position(row), j) && allowed(position(row), j); });
  } else {
    return mask({p.heads, rows, p.kv_len},
                [&](index_t h, index_t row, index_t j) { return visible(position(row), j) && allowed(h, position(row), j); });
  }
}

// K or V with one head for each query head.
template <class T>
Tensor<T> per_query_head(const Problem& p, const Tensor<T>& kv) {
  return p.kv_heads == p.heads ? kv : repeat(kv, 1, p.heads / p.kv_heads);
}

// [B,H,rows,.] with the heads that share a kv head as rows of that, and back: a long cache need not be repeated for each of them.
template <class T>
Tensor<T> by_kv_head(const Problem& p, const Tensor<T>& x) {
  return p.kv_heads == p.heads ? x : reshape(x, {x.extent(0), p.kv_heads, -1, x.extent(3)});
}
template <class T>
Tensor<T> by_query_head(const Problem& p, const Tensor<T>& x) {
  return p.kv_heads == p.heads ? x : reshape(x, {x.extent(0), p.heads, -1, x.extent(3)});
}

// The rows of a problem's mask that the definition's queries have: [...,rows,M], or 1 along an axis.
template <class T>
Tensor<T> mask_rows(const Problem& p, const Values<T>& in) {
  const Tensor<T>& whole = in["mask"];
  if (p.mask.rows == 1) return whole;
  std::vector<index_t> rows(in.position);
  for (index_t& row : rows) row -= p.query_position(0);
  return take(whole, Indices({std::ssize(rows)}, rows), whole.rank() - 2);
}

// softmax_j(logits_ij + mask_ij) over the keys j that are seen, of all of them zero where none is. What the mask hides is not added.
template <class T>
Tensor<T> masked_softmax(const Problem& p, const Values<T>& in, const Tensor<T>& logits, const Mask& seen) {
  if (!p.mask.given()) return softmax(logits, seen);
  const Tensor<T> added = mask_rows(p, in);
  const Mask shown = added > Tensor<T>(-std::numeric_limits<T>::infinity());
  return softmax(logits + where(shown, added, T{0}), shown & seen);
}

// out_i = sum_j softmax_j(scale q_i.k_j + mask_ij) v_j over the keys j that allowed(i, j), causality and the mask, if there is one, permit;
// zeros if none.
template <class T, class F>
Tensor<T> softmax_attention(const Problem& p, const Values<T>& in, F allowed) {
  const Tensor<T> logits = by_query_head(p, matmul(by_kv_head(p, in.q), transpose(in.k))) * static_cast<T>(p.scale());
  return by_query_head(p, matmul(by_kv_head(p, masked_softmax(p, in, logits, allowed_pairs(p, in, allowed))), in.v));
}

inline bool every_key(index_t, index_t) { return true; }

// Refuses tokens beyond the max_len positions that were learned; 0: as many as the problem has.
inline Status within_learned(const Problem& p, index_t max_len) {
  if (max_len == 0 || std::max(p.q_len, p.kv_len) <= max_len) return {};
  return refuse("is learned for max_len=" + std::to_string(max_len) + " positions at most");
}

// For supports_backward: refuses query heads that share a kv head.
inline Status ungrouped(const Problem& p) {
  return p.kv_heads == p.heads ? Status() : refuse("has a backward pass with one kv head for each query head");
}

// Keys that query rows see, summed over the rows of one head: keys_at(i) counts those of the query at position i.
template <class F>
double count_pairs(const Problem& p, F keys_at) {
  double pairs = 0;
  for (index_t row = 0; row < p.q_len; ++row) pairs += static_cast<double>(keys_at(p.query_position(row)));
  return pairs;
}

// Keys first..last that exist and, for causal problems, do not come after position i; of those that are a multiple of `step` away from
// it.
inline index_t visible_keys(const Problem& p, index_t i, index_t first, index_t last, index_t step = 1) {
  const index_t begin = std::max<index_t>(0, first);
  const index_t end = std::min(last, p.causal ? std::min(i, p.kv_len - 1) : p.kv_len - 1);
  return begin > end ? 0 : floor_div(end - i, step) - floor_div(begin - 1 - i, step);
}

// Keys that some of the queries see that share a kv head: what is read of K and V.
class SeenKeys {
 public:
  explicit SeenKeys(const Problem& p) : p_(p), opens_(static_cast<std::size_t>(p.kv_len) + 1), single_(opens_.size()) {}

  // By the query at position i, as visible_keys counts them.
  void add(index_t i, index_t first, index_t last, index_t step = 1) {
    const index_t begin = std::max<index_t>(0, first);
    const index_t end = std::min(last, p_.causal ? std::min(i, p_.kv_len - 1) : p_.kv_len - 1);
    if (begin > end) return;
    if (step == 1) {
      ++opens_[static_cast<std::size_t>(begin)];
      --opens_[static_cast<std::size_t>(end) + 1];
    } else {
      for (index_t j = begin + floor_mod(i - begin, step); j <= end; j += step) single_[static_cast<std::size_t>(j)] = true;
    }
  }
  index_t count() const {
    index_t seen = 0, open = 0;
    for (std::size_t j = 0; j + 1 < opens_.size(); ++j) seen += (open += opens_[j]) > 0 || single_[j];
    return seen;
  }

 private:
  Problem p_;
  std::vector<index_t> opens_;  // ranges that begin at a key, less those that end before it
  std::vector<bool> single_;
};

// For `state`: the keys and values of the first `pinned` tokens and of the last `rows` before a step, the current one included.
inline StateSpec kept_tokens(const Problem& p, index_t rows, index_t pinned = 0) {
  return kept_tokens(p, Reads::qkv, rows, pinned);
}
// Likewise those of the last `summary` tokens of each `block`.
inline StateSpec kept_summaries(const Problem& p, index_t rows, index_t block, index_t summary) {
  StateSpec spec = kept_tokens(p, rows, ceil_div(p.kv_len, block) * summary);
  if (spec.rows() < p.kv_len && summary > 0) spec.block = block, spec.summary = summary;
  return spec;
}
// The last `rows` rows of x in their order, zeros where no token has come yet; in `absorb`: moves up, with the new ones last.
inline StateSpec last_rows(const Problem& p, index_t rows) {
  return {{{.name = "x", .extents = {p.heads, std::min(rows, p.kv_len), p.head_dim}}}};
}
void move_up(const View<const float, 4>& x, const State& state);
// In `absorb`, of a tensor with a row for each position, [heads, rows, width]: tokens into theirs.
void keep_rows(const View<const float, 4>& tokens, const State& state, std::string_view name);
// So many keys and values, or as many as there are, made of those of the tokens.
inline StateSpec kept_keys(const Problem& p, index_t keys) {
  StateSpec spec = kept_tokens(p, keys);
  spec.of_tokens = spec.updated = false;
  return spec;
}

// Softmax attention over so many pairs a head: two products and one exponential each.
inline Cost softmax_cost(const Problem& p, double pairs) {
  const double all = pairs * static_cast<double>(p.batch * p.heads);
  return {.flops = 2 * all * static_cast<double>(p.head_dim + p.value_dim), .bytes = tensor_bytes(p), .exps = all};
}

// The same where fewer queries than keys may leave some of the keys unread: see(i, seen), or see(head, i, seen), adds to a SeenKeys
// those of the query at position i.
template <class F>
Cost softmax_cost(const Problem& p, double pairs, F see) {
  Cost cost = softmax_cost(p, pairs);
  if (p.self_attention()) return cost;
  constexpr bool by_head = std::is_invocable_v<F, index_t, index_t, SeenKeys&>;
  index_t seen = 0;  // of all kv heads
  for (index_t kv_head = 0; kv_head < (by_head ? p.kv_heads : 1); ++kv_head) {
    SeenKeys keys(p);
    for (index_t head = 0; head < (by_head ? p.heads / p.kv_heads : 1); ++head) {
      for (index_t row = 0; row < p.q_len; ++row) {
        if constexpr (by_head)
          see(kv_head * (p.heads / p.kv_heads) + head, p.query_position(row), keys);
        else
          see(p.query_position(row), keys);
      }
    }
    seen += keys.count() * (by_head ? 1 : p.kv_heads);
  }
  const index_t unseen = p.kv_heads * p.kv_len - seen;
  cost.bytes -= static_cast<double>(p.batch * unseen * (bytes_of(p.kv_dtype, p.head_dim) + bytes_of(p.kv_dtype, p.value_dim)));
  return cost;
}

}  // namespace attn
