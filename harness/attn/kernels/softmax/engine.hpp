// Softmax attention over any set of keys, at the speed of the tile kernel (tile.hpp). A variant plans one engine, then runs it
// with a schedule of about ten lines (keys.hpp):
//
//   engine.run(arrays, workspace, [&](const QueryBlock&, KeyList& keys) { keys.all().band(left, right); });
//
// Q may be f32, bf16 or f16, K and V besides q8. With Compute::f32 they are widened as they come, and the result is that of the
// widened arrays to the bit.
// Of a problem with a mask (Problem::mask) logits are made in floats, in forward passes alone.
// Results depend on the plan (problem, options, threads, instruction set) and on nothing else: same plan, same bits.
// Denormal numbers count as zero inside (in microcode they cost 250 times a multiplication). Logits beyond 1e9 in size
// lose their weights to rounding.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "attn/core/array.hpp"
#include "attn/core/problem.hpp"
#include "attn/core/view.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/workspace.hpp"
#include "attn/kernels/machine/compute.hpp"
#include "attn/kernels/softmax/keys.hpp"
#include "attn/kernels/softmax/query_cut.hpp"
#include "attn/kernels/softmax/tile.hpp"

namespace attn::kernels {

struct EngineOptions {
  QueryBlocks queries = {};
  index_t keys_per_query = anywhere;    // at most: short windows take them all at a time
  std::optional<double> scale = {};     // of q.k, where not the problem's
  std::optional<Compute> compute = {};  // where not the problem's (compute_of)
  // In floats, and without a backward pass; one of both:
  double softcap = 0;   // > 0: logits are softcap tanh(scale q.k / softcap)
  bool biased = false;  // runs have a potential
  // For few rows (attention.hpp):
  bool heads_apart = false;  // lists of keys differ between heads that share a kv head
  index_t stretches = 16;    // a list is so many evenly spaced runs of equal stretches, at most
};

struct EngineArrays {
  Array q;                  // [B,H,N,D]    of the problem's number types
  Array k;                  // [B,Hk,M,D]   last stride 1, so below
  Array v;                  // [B,Hk,M,Dv]
  View<float, 4> out;       // [B,H,N,Dv]   zeros for a query that sees no key
  View<float, 3> lse = {};  // [B,H,N]      optional: ln sum exp(logit), -inf for a query that sees no key
  bool resume = false;      // out and lse hold what earlier runs found among other keys: go on from there
  // [B,H,extra+M], extra >= N - M: to the logit of a query at position i and key j come potential(extra + i) - potential(extra + j). A tile takes
  // the difference from its first query, so that weights are off by the rounding of what the potential changes among 48 queries.
  View<const double, 3> potential = {};
  // [B,H,N,M], 1 along an axis on which it is the same (Problem::mask): is added to the logits; -inf hides the key, which is then not read.
  View<const float, 4> mask = {};
  // As Arrays have them. Of self-attention, rows past a sequence's length are zeros in the output.
  std::span<const index_t> lengths = {};
  KeyLayout layout = {};

  EngineArrays(const View<const float, 4>& q_, const View<const float, 4>& k_, const View<const float, 4>& v_,
               const View<float, 4>& out_ = {}, const View<float, 3>& lse_ = {}, bool resume_ = false)
      : q(q_), k(k_), v(v_), out(out_), lse(lse_), resume(resume_) {}
  // NOLINTNEXTLINE(google-explicit-constructor): the engine's door
  EngineArrays(const Arrays& a, const View<float, 3>& lse_ = {}, bool resume_ = false)
      : q(a.q), k(a.k), v(a.v), out(a.out.f32_out()), lse(lse_), resume(resume_), lengths(a.lengths), layout(a.layout) {
    if (const Array* given = a.more.find("mask")) mask = given->f32();
  }
};

using KeySchedule = FunctionRef<void(const QueryBlock&, KeyList&)>;

// The backward pass of a run over the same keys. `d_out` is the gradient of some number with respect to `out`.
struct EngineGradients {
  View<const float, 4> out;    // what the forward pass, with all its engines, came to
  View<const float, 4> d_out;  // [B,H,N,Dv]   last stride 1, so below
  View<float, 4> d_q;          // [B,H,N,D]
  View<float, 4> d_k;          // [B,Hk,M,D]
  View<float, 4> d_v;          // [B,Hk,M,Dv]
  bool add = false;            // to what d_q, d_k and d_v hold: for an engine after another

  EngineGradients(const View<const float, 4>& out_, const View<const float, 4>& d_out_, const View<float, 4>& d_q_,
                  const View<float, 4>& d_k_, const View<float, 4>& d_v_, bool add_ = false)
      : out(out_), d_out(d_out_), d_q(d_q_), d_k(d_k_), d_v(d_v_), add(add_) {}
  EngineGradients(const Arrays& a, const InputGradients& g)
      : EngineGradients(a.out.f32(), g.d_out.f32(), g.d_q.f32_out(), g.d_k.f32_out(), g.d_v.f32_out()) {}
};

// The engine's backward pass (engine_backward.cpp).
class SoftmaxBackward {
 public:
  SoftmaxBackward(const Problem&, const EngineOptions&, float factor, WorkspacePlan&);
  void run(const Problem&, const EngineArrays&, const EngineGradients&, const Workspace&, const RowSchedule* rows,
           KeySchedule) const;

 private:
  class Task;

  TileShape shape_;
  float factor_;  // on q: scores in log2 units
  float scale_;   // of q.k
  QueryCut cut_;
  index_t stride_ = 0;      // of a row of weights: the queries of a block
  index_t splits_ = 1;      // tasks of a kv head, each with its own sums of d_k and d_v
  Booking<float> partial_;  // of the splits but the first
  Booking<float> scratch_;
  Booking<std::byte> panel_;
};

class SoftmaxEngine {
 public:
  // head_dim and value_dim from 1 to 256; of q8, rows are whole blocks.
  SoftmaxEngine(const Problem&, const EngineOptions&, WorkspacePlan&);

  // `schedule` is called from several threads.
  void run(const EngineArrays&, const Workspace&, KeySchedule schedule) const;
  // With QueryBlocks::listed. Rows of a head may stand in one block only; rows in none are not written.
  void run(const EngineArrays&, const Workspace&, RowSchedule rows, KeySchedule schedule) const;

  // After a run of a plan for training, with the same schedule: writes the gradients, in memory that grows with N alone. Of the
  // arrays q, k, v and, if the run had one, lse are read; what is in them must be finite. Rows in no listed block keep their d_q.
  void backward(const EngineArrays&, const EngineGradients&, const Workspace&, KeySchedule schedule) const;
  void backward(const EngineArrays&, const EngineGradients&, const Workspace&, RowSchedule rows, KeySchedule schedule) const;
  // Says after a run that other engines wrote these rows of every head after it: `backward` leaves them out.
  void leave_out(std::span<const std::int32_t> rows, const Workspace&) const;

  Compute compute() const { return compute_; }

 private:
  struct Tiles;
  struct BlockWork;
  class BlockPass;

  // A problem cut into tasks: of the plan, or of one sequence of a ragged batch as if it were alone.
  struct Division {
    Problem problem;
    QueryCut cut;
    index_t first_batch = 0;
    index_t blocks = 0;  // over all heads and batches
    index_t splits = 1;  // parts of a block's keys, each a task of its own

    QueryBlock block(index_t number, const RowSchedule* rows) const;
  };
  Division divide(const Problem&, index_t first_batch = 0) const;
  bool widens() const { return compute_ == Compute::f32 && (problem_.dtype != DType::f32 || problem_.kv_dtype != DType::f32); }
  void book(WorkspacePlan&);

  Tiles cut_into_tiles(const QueryBlock&, std::span<float> scratch) const;
  // With splits > 1, `slot` of them.
  std::span<float> split_scratch(const Workspace&, index_t slot) const;
  std::span<std::uint64_t> flags(const Workspace&, index_t slot) const;  // of the slot's tiles, two each: unset, fresh
  void order_tasks(const Division&, std::span<std::int32_t> order, std::span<float> cost, const RowSchedule* rows,
                   KeySchedule) const;
  void attend(const BlockWork&, index_t slot) const;
  void merge(const Division&, const EngineArrays&, const Workspace&, const QueryBlock&, index_t number) const;
  void store(const EngineArrays&, const Tiles&, const QueryBlock&, std::size_t tile) const;
  void run(const EngineArrays&, const Workspace&, const RowSchedule* rows, KeySchedule) const;
  void run(const Division&, const EngineArrays&, const Workspace&, const RowSchedule* rows, KeySchedule) const;
  void clear_rows(const EngineArrays&, index_t batch, index_t first) const;
  void backward(const EngineArrays&, const EngineGradients&, const Workspace&, const RowSchedule* rows, KeySchedule) const;
  View<float, 3> own_lse(const Workspace&) const;
  // Of a head, at position 0; null where runs have none.
  const double* potential(const EngineArrays&, const QueryBlock&) const;

  Problem problem_;
  EngineOptions options_;
  Compute compute_;
  TileShape shape_;
  Scoring scoring_;
  float factor_;           // on q: scores in log2 units, or over the cap
  const TileOps* ops_[3];  // by vectors - 1
  int threads_;
  index_t panel_limit_ = 0;  // keys taken at a time
  index_t batch_limit_ = 0;  // by a tile
  Division whole_;
  index_t split_slots_ = 0;
  Booking<float> tiles_;        // a worker's
  Booking<float> split_tiles_;  // of each task where keys are split
  Booking<std::uint64_t> seen_;
  Booking<float> weights_;
  Booking<std::byte> panels_;
  Booking<std::byte> copies_;
  Booking<float> widened_;
  Booking<std::uint32_t> packed_;  // pairs of values
  Booking<float> pair_bias_;       // of a panel, for a tile
  Booking<float> cost_;
  Booking<std::int32_t> order_;
  bool training_;
  Booking<float> lse_;
  SoftmaxBackward backward_;
};

}  // namespace attn::kernels
