#include "attn/kernels/softmax/block_pass.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "attn/core/round.hpp"

namespace attn::kernels {

namespace {

KeyList listed(const QueryBlock& block, KeySchedule schedule, index_t kv_len) {
  KeyList list(kv_len);
  schedule(block, list);
  return list;
}

KeyStream stream_of(const KeyList& list, const QueryBlock& block, index_t queries, bool causal, index_t panel_limit) {
  const auto [lowest, highest] = position_range(block, 0, queries);
  return {list, lowest, highest, causal, panel_limit};
}

}  // namespace

SoftmaxEngine::BlockPass::BlockPass(const SoftmaxEngine& engine, const BlockWork& work, Tiles& tiles, bool guard_all)
    : engine_(engine),
      work_(work),
      tiles_(tiles),
      guard_all_(guard_all),
      q_(work.arrays.q[work.block.batch][work.block.head]),
      later_q_(work.arrays.q[work.later.batch][work.later.head]),
      out_(work.arrays.out[work.block.batch][work.block.head]),
      later_out_(work.arrays.out[work.later.batch][work.later.head]),
      rows_(key_rows(work.block)),
      list_(listed(work.block, work.schedule, work.division.problem.kv_len)),
      stream_(stream_of(list_, work.block, work.block.count, engine.problem_.causal, engine.panel_limit_)) {
  std::byte* const memory = work.workspace.of(work.worker, engine.panels_).data();
  panel_ = new (memory) KeyPanel;
  next_ = new (memory + sizeof(KeyPanel)) KeyPanel;
  copies_ = work.workspace.of(work.worker, engine.copies_).data();
  next_copies_ = copies_ + engine.copies_.count / 2;
  weights_ = work.workspace.of(work.worker, engine.weights_).data();
}

// A tile reads a row of K once, so that a copy pays from three tiles on: without one a column of 64 queries is 6 % faster.
KeyRows SoftmaxEngine::BlockPass::key_rows(const QueryBlock& of) const {
  const auto k = work_.arrays.k[of.batch][of.kv_head];
  const auto v = work_.arrays.v[of.batch][of.kv_head];
  const TileShape& shape = engine_.shape_;
  KeyRows rows{k.data_handle(), v.data_handle(), k.stride(0), v.stride(0), shape.head_dim, shape.value_dim, tiles_.size > 2};
  rows.layout = work_.arrays.layout;
  if (rows.layout.pages != nullptr) rows.layout.pages += of.batch * rows.layout.pages_stride;
  return rows;
}

bool SoftmaxEngine::BlockPass::run() {
  bool more = advance();
  swap_panels();
  more = more && advance();
  if (!more) look_beyond();
  if (more || work_.division.splits > 1) return panel_by_panel(more);
  tile_by_tile();
  return true;
}

// One panel, or none: each tile is done in one go, in arrays that stay in the first cache.
void SoftmaxEngine::BlockPass::tile_by_tile() {
  for (std::size_t t = 0; t < static_cast<std::size_t>(tiles_.size); ++t) {
    tiles_.tile[t] = tiles_.tile[0];
    start_tile(t);
    if (attend_panel(t, false) && !finite(t)) {
      start_tile(t);
      attend_panel(t, true);
    }
    engine_.store(work_.arrays, tiles_, work_.block, t);
  }
}

bool SoftmaxEngine::BlockPass::panel_by_panel(bool more) {
  const auto tile_count = static_cast<std::size_t>(tiles_.size);
  const bool resume = work_.arrays.resume;
  const bool store_early = work_.division.splits == 1 && !resume;  // while the tile is hot; what resumes may have to start again
  bool any_cut[most_tiles] = {};
  bool all_finite = true;
  for (bool first = true, last = false; !last; first = false) {
    last = !more;
    for (std::size_t t = 0; t < tile_count; ++t) {
      if (first) start_tile(t);
      if (attend_panel(t, guard_all_)) any_cut[t] = true;
      if (!last) continue;
      if (any_cut[t]) all_finite = all_finite && finite(t);
      if (store_early) engine_.store(work_.arrays, tiles_, work_.block, t);
    }
    if (last) break;
    swap_panels();
    more = advance();
    if (!more) look_beyond();
    soon_.keys = soon_.next = 0;
  }
  if (work_.division.splits == 1 && resume && (all_finite || guard_all_)) {
    for (std::size_t t = 0; t < tile_count; ++t) engine_.store(work_.arrays, tiles_, work_.block, t);
  }
  return all_finite;
}

void SoftmaxEngine::BlockPass::start_tile(std::size_t t) {
  const TileQueries& queries = tiles_.queries[t];
  const float* rows[max_lanes];
  for (index_t i = 0; i < queries.count; ++i) rows[i] = q_.row(work_.block.row(queries.first + i));
  tiles_.ops[t]->load(tiles_.tile[t], engine_.shape_, rows, queries.count, engine_.factor_);
  if (work_.arrays.resume && work_.split == 0) resume_tile(t);
  if (work_.wide.load(std::memory_order_relaxed)) tiles_.tile[t].wide = true;
}

void SoftmaxEngine::BlockPass::resume_tile(std::size_t t) {
  const QueryBlock& block = work_.block;
  const TileQueries& queries = tiles_.queries[t];
  const float *rows[max_lanes], *lse[max_lanes];
  for (index_t i = 0; i < queries.count; ++i) {
    const index_t row = block.row(queries.first + i);
    rows[i] = out_.row(row);
    lse[i] = &work_.arrays.lse(block.batch, block.head, row);
  }
  tiles_.ops[t]->resume(tiles_.tile[t], engine_.shape_, rows, queries.count, lse);
}

// Takes a tile through the panel; true when some batch was cut.
bool SoftmaxEngine::BlockPass::attend_panel(std::size_t t, bool guard) {
  const TileQueries& queries = tiles_.queries[t];
  soon_.queries = std::max(soon_.queries, queries.first + queries.count);
  const auto [first, end] = look_at_steps(t);
  soon_.keys = std::max(soon_.keys, end * key_step);
  bool any_cut = false;
  for (index_t s = first; s < end;) {
    if (seen_[s] == Sight::none) {
      ++s;
      continue;
    }
    KeyBatch batch = next_batch(s, end);
    any_cut = any_cut || batch.cut != 0;
    batch.guard = guard;
    batch.fetch_count = list_soon(t, batch.count);
    tiles_.ops[t]->attend(tiles_.tile[t], engine_.shape_, batch, weights_);
  }
  if (tiles_.tile[t].wide && !work_.wide.load(std::memory_order_relaxed)) work_.wide.store(true, std::memory_order_relaxed);
  return any_cut;
}

// The steps of the panel that the tile may see, and in `seen_` what it sees of them.
std::pair<index_t, index_t> SoftmaxEngine::BlockPass::look_at_steps(std::size_t t) {
  const TileQueries& queries = tiles_.queries[t];
  const auto [first, end] = steps_in_reach(*panel_, queries);
  if (sees_whole(*panel_, queries)) {
    std::fill(seen_ + first, seen_ + end, Sight::all);
  } else {
    const bool causal = engine_.problem_.causal;
    for (index_t s = first; s < end; ++s) seen_[s] = sight(*panel_, s, queries, causal, lanes_ + s * key_step);
  }
  return {first, end};
}

// From `step` on, which is seen. A stretch of seen steps is taken in batches of nearly equal length.
KeyBatch SoftmaxEngine::BlockPass::next_batch(index_t& step, index_t end) {
  index_t stretch = step;
  while (stretch < end && seen_[stretch] != Sight::none) ++stretch;
  stretch -= step;
  const index_t from = step, steps = ceil_div(stretch, ceil_div(stretch * key_step, batch_keys));
  std::uint64_t cut = 0;
  for (; step < from + steps; ++step) cut |= std::uint64_t{seen_[step] == Sight::some} << (step - from);
  return {.k = panel_->k.data() + from * key_step,
          .v = panel_->v.data() + from * key_step,
          .lanes = lanes_ + from * key_step,
          .cut = cut,
          .guard = false,
          .count = steps * key_step,
          .fetch = {soon_.rows[0], soon_.rows[1]}};
}

// The next panel of this split's.
bool SoftmaxEngine::BlockPass::advance() {
  do {
    if (!stream_.next(rows_, *next_, next_copies_)) return false;
  } while (++number_ % work_.division.splits != work_.split);
  return true;
}

void SoftmaxEngine::BlockPass::swap_panels() {
  std::swap(panel_, next_);
  std::swap(copies_, next_copies_);
}

// Cold rows cost a short window a quarter of its time, so every batch fetches some that come after it: queries with their output
// rows, and keys with their values. What follows the last panel of a block are the first keys of the later block.
void SoftmaxEngine::BlockPass::look_beyond() {
  const QueryBlock& later = work_.later;
  if (later.count == 0) return;
  const KeyList list = listed(later, work_.schedule, work_.division.problem.kv_len);
  const index_t queries = std::min(later.count, engine_.ops_[2]->lanes);
  stream_of(list, later, queries, engine_.problem_.causal, usual_panel_keys).next(key_rows(later), *next_, nullptr);
}

index_t SoftmaxEngine::BlockPass::list_queries(index_t until, index_t n, index_t room) {
  const QueryBlock &block = work_.block, &later = work_.later;
  for (; n < room && soon_.queries < std::min(until, block.count); ++n, ++soon_.queries) {
    const index_t row = block.row(soon_.queries);
    soon_.rows[0][n] = q_.row(row);
    soon_.rows[1][n] = out_.row(row);
  }
  for (; n < room && soon_.queries < std::min(until, block.count + later.count); ++n, ++soon_.queries) {
    const index_t row = later.row(soon_.queries - block.count);
    soon_.rows[0][n] = later_q_.row(row);
    soon_.rows[1][n] = later_out_.row(row);
  }
  return n;
}

index_t SoftmaxEngine::BlockPass::list_keys(const KeyPanel& from, index_t& done, index_t n, index_t room) {
  for (; n < room && done < from.count; ++n, ++done) {
    soon_.rows[0][n] = from.k[static_cast<std::size_t>(done)];
    soon_.rows[1][n] = from.v[static_cast<std::size_t>(done)];
  }
  return n;
}

index_t SoftmaxEngine::BlockPass::list_soon(std::size_t t, index_t room) {
  const index_t lanes = tiles_.ops[t]->lanes;
  const index_t end = tiles_.queries[t].first + tiles_.queries[t].count;
  index_t n = list_queries(end + lanes, 0, room);
  const index_t room_for_keys = std::min(room, n + (engine_.panel_limit_ == panel_keys ? lanes + 16 : usual_panel_keys));
  n = list_keys(*panel_, soon_.keys, n, room_for_keys);
  n = list_keys(*next_, soon_.next, n, room_for_keys);
  n = list_queries(end + 2 * lanes, n, room);
  for (; n % key_step != 0; ++n) {
    for (const float** rows : {soon_.rows[0], soon_.rows[1]}) rows[n] = rows[n - 1];
  }
  return n;
}

}  // namespace attn::kernels
