// A cache of few keys: the last ones, and of those before them the ones that were attended to most. Who goes is decided key by key, from the
// floats of q and k alone: the same floats give the same table, in whatever stretches they come; equal sums keep the key that came first, and a
// sum that is no number puts nobody out.
#pragma once

#include <cstdint>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/dense/gemm.hpp"

namespace attn::kernels {

struct HeavyRules {
  index_t heavy, recent;  // keys that are kept, recent at least 1
  index_t room() const { return heavy + recent; }
};

// Of one kv head. Key t has slot t % recent until the key t + recent comes, then one of the `heavy` slots from `recent` on, or none: used
// slots are the first min(t + 1, room).
struct HeavyCache {
  Into k, v;        // [room, .]
  float* sums;      // [room]   weights that queries have given to the key so far
  float* position;  // [heavy]  of the keys in the slots from `recent` on, exact up to 2^24
};

class HeavyHitters {
 public:
  HeavyHitters(const Problem& p, const HeavyRules& rules) : p_(p), rules_(rules) {}

  index_t group() const { return p_.heads / p_.kv_heads; }
  index_t used(index_t t) const { return t + 1 < rules_.room() ? t + 1 : rules_.room(); }
  index_t weights_floats() const { return group() * rules_.room(); }

  // Key t, which follows those that the cache was given before, takes its slot. The position of the key that goes for it; -1: none does.
  index_t take_in(index_t t, const float* k, const float* v, const HeavyCache&) const;
  // The softmax weights [group, room] that the group's queries at position t, rows of q, give to the slots that are used.
  void weigh(index_t t, Rows q, const HeavyCache&, float* weights) const;
  // Adds them to the keys' sums.
  void remember(index_t t, const float* weights, const HeavyCache&) const;
  // The weights' means of the values, rows of the group's queries.
  void answer(index_t t, const float* weights, const HeavyCache&, Into out) const;

 private:
  Problem p_;
  HeavyRules rules_;
};

// For a definition, on the calling thread: of each kv head and key the last position whose queries see it, [B,Hk,M]. q [B,H,M,D] and
// k [B,Hk,M,D] are dense.
std::vector<std::int32_t> last_seen(const Problem&, const HeavyRules&, const float* q, const float* k);

}  // namespace attn::kernels
