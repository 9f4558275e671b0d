// Softmax attention along the edges of a graph: every query has its own short list of keys, that lie anywhere. What binds is the gather
// of their rows, so those of the next query are fetched while this one is computed.
//
//   engine.run({a, a.more["neighbours"].f32<4>()}, workspace, [&](const EdgeScores& e) { edge_dots(e, head_dim, scale); });
#pragma once

#include <cstdint>
#include <span>

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/workspace.hpp"

namespace attn::kernels {

enum class Loops { given, none, added };  // edges of a node to itself: as they are, left out, or one for each node

struct EdgeRules {
  Loops loops = Loops::given;
  bool once = false;  // a neighbour named twice counts once
};

// One query and its neighbours: to[e] is the score of node[e].
struct EdgeScores {
  index_t batch, head, query;
  const float* q;                      // head_dim floats
  std::span<const std::int32_t> node;  // of the keys
  const float* const* k;               // their rows; not fetched where the engine does not read keys
  float* to;
};

class EdgeAttention {
 public:
  // `degree`: neighbours of a node, at most.
  EdgeAttention(const Problem&, index_t degree, const EdgeRules&, WorkspacePlan&, bool reads_keys = true);

  struct Views {
    View<const float, 4> q, k, v;     // [B,H,N,D], [B,Hk,N,D], [B,Hk,N,Dv]
    View<float, 4> out;               // [B,H,N,Dv]  zeros for a query without neighbours
    View<const float, 4> neighbours;  // [B,1,N,degree]  numbers of nodes; outside 0..N-1: none

    Views(const Arrays& a, const View<const float, 4>& neighbours_)
        : q(a.q.f32()), k(a.k.f32()), v(a.v.f32()), out(a.out.f32_out()), neighbours(neighbours_) {}
  };
  using Score = FunctionRef<void(const EdgeScores&)>;
  void run(const Views&, const Workspace&, Score) const;

 private:
  // Writes the list of `query`; returns its length.
  index_t list(const float* neighbours, index_t query, std::int32_t* to) const;

  Problem p_;
  index_t degree_, room_;  // room_: of a list
  EdgeRules rules_;
  bool reads_keys_;
  Booking<std::int32_t> nodes_;
  Booking<const float*> rows_;
  Booking<float> scores_;
};

// to[e] = scale q.k_e
void edge_dots(const EdgeScores&, index_t head_dim, float scale);
// to[e] = sum_c weights[c] leaky(q_c + k_ec), leaky(x) = max(x, slope x) for a slope in [0, 1]
void edge_leaky_dots(const EdgeScores&, index_t head_dim, const float* weights, float slope);
// Scores become their softmax.
void edge_weights(float* scores, index_t count);
// out = sum_e weights[e] v_e
void edge_sum(const float* weights, const float* const* v, index_t count, index_t value_dim, float* out);

}  // namespace attn::kernels
