// Softmax attention of a few queries against a long cache: decoding. The queries of all heads that share a kv head meet its keys
// together, so that K and V are read from memory once, at the memory's speed. Where there are hundreds of rows to a kv head, the
// softmax engine (softmax/engine.hpp) is the faster one.
//
//   engine.run({.q = q, .k = k, .v = v, .out = out}, lengths, workspace);
//   engine.run(arrays, lengths, workspace, [&](const QueryBlock&, KeyList& keys) { keys.all().band(left, 0); });
//
// Q may be f32, bf16 or f16, K and V besides q8: they are widened in registers, and the result is that of the widened arrays to the
// bit. Sequence b has lengths[b] keys, and its queries stand at the last positions: row r at lengths[b] - q_len + r. Nothing else of
// the cache is read. Keys are cut after every 512 of a sequence's list, the parts are summed apart and added in their order, so
// the result of a sequence is the same to the bit with any number of threads, in any batch, and wherever its keys lie. It depends
// on its own rows, keys and length, on head_dim, value_dim, q_len and the heads of a group, and on the instruction set.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/softmax/keys.hpp"

namespace attn::kernels {

struct RowsArrays {
  Array q;                  // [B,H,N,D]    of the problem's number types
  Array k;                  // [B,Hk,M,D]   last stride 1, so below
  Array v;                  // [B,Hk,M,Dv]
  View<float, 4> out;       // [B,H,N,Dv]   zeros for a query that sees no key
  View<float, 3> lse = {};  // [B,H,N]      optional: ln sum exp(logit), -inf for a query that sees no key
  KeyLayout layout = {};
  // [B,H,extra+M], extra >= N - M, where runs have one: to the logit of a query at position i and key j come potential(extra + i) -
  // potential(extra + j).
  View<const double, 3> potential = {};
  bool resume = false;  // out and lse hold what earlier runs found among other keys: go on from there
};

struct RowsOptions {
  std::optional<double> scale = {};  // of q.k, where not the problem's
  index_t keys = anywhere;           // in a list of the schedule, at most: kv_len or fewer
  index_t spans = 64;                // evenly spaced runs of equal stretches in a list, at most
  bool apart = false;                // every query has a list of its own
  bool heads_apart = false;          // so have heads that share a kv head
  double softcap = 0;                // > 0: logits are softcap tanh(scale q.k / softcap), where takes_scores
  // > 0: of latents in f32: a query of head_dim + value_dim numbers meets a key's row of k and then that of v, and the value is the first
  // `latent` numbers of k and then v: out has latent + value_dim.
  index_t latent = 0;
};

class RowsEngine {
 public:
  // So few rows to a list that their scores may be capped or have a potential.
  static bool takes_scores(const Problem&, const RowsOptions&);

  // kv_len: keys of the longest sequence. head_dim and value_dim from 1 to 256; of q8, rows are whole blocks.
  RowsEngine(const Problem&, const RowsOptions&, WorkspacePlan&);

  // Every query sees all keys of its sequence, in a causal problem those up to its own position. `lengths`: one for each batch
  // item, 0 to kv_len, or none where all have kv_len keys.
  void run(const RowsArrays&, std::span<const index_t> lengths, const Workspace&) const;

  // The keys that a schedule lists, called once for each kv head with `head` its first query head, or as the options say; keys count
  // from 0 to the sequence's length. Predicates of its runs are called from several threads.
  using Schedule = FunctionRef<void(const QueryBlock&, KeyList&)>;
  void run(const RowsArrays&, std::span<const index_t> lengths, const Workspace&, Schedule) const;

 private:
  struct Item;
  struct Task;
  class Run;

  void run(const RowsArrays&, std::span<const index_t> lengths, const Workspace&, const Schedule*) const;

  index_t query_dim() const { return problem_.head_dim + (latent_ > 0 ? problem_.value_dim : 0); }
  index_t out_dim() const { return latent_ + problem_.value_dim; }

  Problem problem_;
  double scale_;
  index_t latent_;
  index_t group_;       // heads that share a list of keys
  index_t queries_;     // of a head, likewise
  index_t lists_;       // of a sequence
  index_t row_blocks_;  // that the rows of a list are cut into, each with its own pass over the keys
  index_t block_rows_;
  std::shared_ptr<const class GroupKernel> kernel_;
  index_t items_;       // batch items x lists x row blocks
  index_t most_parts_;  // of an item
  index_t most_tasks_;
  bool splits_;  // an item's parts may be several tasks
  index_t span_room_;
  Booking<std::byte> item_memory_, task_memory_, spans_, worker_memory_;
  Booking<float> parts_;    // states: of all parts of all items, where items are split
  Booking<float> scratch_;  // a worker's
  Booking<float> widened_;  // its queries
};

}  // namespace attn::kernels
