// For variants that attend along the edges of a graph: their options, the array `neighbours` that they read, and what definitions make
// of it.
#pragma once

#include <cmath>
#include <vector>

#include "attn/kernels/rows/edges.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

struct EdgeOptions {
  index_t degree = 16;
  kernels::Loops loops = kernels::Loops::given;
  bool once = false;

  kernels::EdgeRules rules() const { return {loops, once}; }
  // Of a node's list.
  index_t most() const { return degree + (loops == kernels::Loops::added ? 1 : 0); }
};

template <class Options>
OptionTable<Options> edge_options() {
  using kernels::Loops;
  return OptionTable<Options>()
      .integer("degree", &Options::degree, 1, 65536, "neighbours of a node, at most: the last extent of array `neighbours`")
      .choice("loops", static_cast<Loops Options::*>(&Options::loops),
              {{"given", Loops::given}, {"none", Loops::none}, {"added", Loops::added}},
              "edges of a node to itself: as they are, left out, or one for each node")
      .flag("once", &Options::once, "a neighbour that is named twice counts once");
}

// Node i attends to nodes neighbours[i]; numbers outside 0 .. N-1 stand for none. Where the input has no graph each is drawn from all nodes.
inline std::vector<InputSpec> neighbours_input(const Problem& p, const EdgeOptions& o) {
  const auto nodes = static_cast<double>(p.kv_len);
  return {{.name = "neighbours",
           .extents = {p.batch, 1, p.kv_len, o.degree},
           .low = -1,
           .high = nodes - 1,
           .drawn = [nodes](double normal) { return std::erfc(-normal / std::sqrt(2.0)) / 2 * nodes; },
           .doc = "[B,1,N,degree]: the nodes that node i attends to, -1 for none",
           .whole = true}};
}

// The flops of an edge and head are a page's own: these are of a dot product and a sum. An edge that a list has no neighbour for counts, too.
inline Cost edge_cost(const Problem& p, const EdgeOptions& o) {
  Cost cost = softmax_cost(p, static_cast<double>(p.q_len * std::min(o.most(), p.kv_len)) * (p.causal ? 0.5 : 1.0));
  cost.bytes += static_cast<double>(sizeof(float) * static_cast<std::size_t>(p.batch * p.kv_len * o.degree));
  return cost;
}

// What pages along edges have in common. `own_loops`: what `loops` is where nothing is said.
template <kernels::Loops own_loops>
struct EdgePage {
  struct Options : EdgeOptions {
    Options() { loops = own_loops; }
  };
  static OptionTable<Options> options() { return edge_options<Options>(); }
  static std::vector<InputSpec> inputs(const Problem& p, const Options& o) { return neighbours_input(p, o); }
  static Status supports(const Problem& p, const Options&) {
    constexpr index_t most = 1 << 24;
    return p.kv_len <= most ? Status() : refuse("takes " + std::to_string(most) + " nodes at most: their numbers are floats");
  }

  // Where a score is negative only so much of it is left: leaky(x) = max(x, slope x).
  static constexpr float slope = 0.2f;
  template <class T>
  static Tensor<T> leaky(const Tensor<T>& x) {
    return maximum(x, x * static_cast<T>(0.2));
  }
};

// The neighbours of the rows of a definition, by the rules: [B,1,rows most], -1 for none.
template <class T>
Indices neighbours_of(const Problem& p, const EdgeOptions& o, const Values<T>& in) {
  using kernels::Loops;
  const auto rows = std::ssize(in.position);
  const Tensor<T>& given = in["neighbours"];
  const auto node = [&](index_t b, index_t i, index_t e) {  // the e-th of node i; -1 for one that the rules leave out
    if (e == o.degree) return i;
    const auto j = static_cast<index_t>(given(b, 0, i, e));
    const bool there = j >= 0 && j < p.kv_len && (!p.causal || j <= i);
    return there && !(j == i && o.loops != Loops::given) ? j : -1;
  };
  return Indices::from({p.batch, 1, rows * o.most()}, [&](index_t b, index_t, index_t at) {
    const index_t i = in.position[static_cast<std::size_t>(at / o.most())], e = at % o.most(), j = node(b, i, e);
    for (index_t before = 0; o.once && before < e; ++before)
      if (node(b, i, before) == j) return index_t{-1};
    return j;
  });
}

// x [B,Hk,N,.] of the neighbours of each row, a head for each query head: [B,H,rows,most,.].
template <class T>
Tensor<T> of_neighbours(const Problem& p, const EdgeOptions& o, const Tensor<T>& x, const Indices& neighbours) {
  const Tensor<T> found = per_query_head(p, gather_rows(x, neighbours));
  return reshape(found, {p.batch, p.heads, -1, o.most(), x.extent(3)});
}

// out_i = sum_e softmax_e(score_ie) v_e over the edges that are there; zeros for a node without any. scores [B,H,rows,most].
template <class T>
Tensor<T> edge_attention(const Problem& p, const EdgeOptions& o, const Values<T>& in, const Tensor<T>& scores,
                         const Indices& neighbours) {
  const Mask there = mask({p.batch, 1, scores.extent(2), o.most()},
                          [&](index_t b, index_t, index_t i, index_t e) { return neighbours(b, 0, i * o.most() + e) >= 0; });
  const Tensor<T> weights = softmax(scores, there);
  return sum(unsqueeze(weights, -1) * of_neighbours(p, o, in.v, neighbours), 3);
}

}  // namespace attn
