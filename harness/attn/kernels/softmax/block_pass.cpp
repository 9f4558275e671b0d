#include "attn/kernels/softmax/block_pass.hpp"

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

#include "attn/core/round.hpp"
#include "attn/kernels/softmax/tile_bf16.hpp"

namespace attn::kernels {

namespace {

constexpr double log2_e = 1.4426950408889634;

KeyList listed(const QueryBlock& block, KeySchedule schedule, index_t kv_len) {
  KeyList list(kv_len);
  schedule(block, list);
  return list;
}

KeyStream stream_of(const KeyList& list, const QueryBlock& block, index_t queries, bool causal, index_t panel_limit) {
  const auto [lowest, highest] = position_range(block, 0, queries);
  return {list, lowest, highest, causal, panel_limit};
}

// What a mask says of a head; nothing where there is none.
View<const float, 2> mask_of(const View<const float, 4>& mask, const QueryBlock& block) {
  if (mask.data_handle() == nullptr) return {};
  return mask[mask.extent(0) == 1 ? 0 : block.batch][mask.extent(1) == 1 ? 0 : block.head];
}

// Whether a row lies within `floats` floats from `from` on.
bool lies_in(const std::byte* row, index_t bytes, const std::byte* from, index_t floats) {
  const auto distance = reinterpret_cast<std::uintptr_t>(row) - reinterpret_cast<std::uintptr_t>(from);
  return distance + static_cast<std::uintptr_t>(bytes) <= static_cast<std::uintptr_t>(floats) * sizeof(float);
}

}  // namespace

SoftmaxEngine::BlockPass::BlockPass(const SoftmaxEngine& engine, const BlockWork& work, Tiles& tiles, bool guard_all)
    : engine_(engine),
      work_(work),
      tiles_(tiles),
      guard_all_(guard_all),
      q_(rows_of_head(work.arrays.q, work.block.batch, work.block.head)),
      later_q_(rows_of_head(work.arrays.q, work.later.batch, work.later.head)),
      out_(work.arrays.out[work.block.batch][work.block.head]),
      later_out_(work.arrays.out[work.later.batch][work.later.head]),
      potential_(engine.potential(work.arrays, work.block)),
      mask_(mask_of(work.arrays.mask, work.block)),
      rows_(key_rows(work.block)),
      list_(listed(work.block, work.schedule, work.division.problem.kv_len)),
      stream_(stream_of(list_, work.block, work.block.count, engine.problem_.causal, engine.panel_limit_)) {
  std::byte* const memory = work.workspace.of(work.worker, engine.panels_).data();
  panel_ = new (memory) KeyPanel;
  next_ = new (memory + sizeof(KeyPanel)) KeyPanel;
  if (engine.copies_.count > 0) {
    copies_ = work.workspace.of(work.worker, engine.copies_).data();
    next_copies_ = copies_ + engine.copies_.count / 2;
  }
  if (engine.widened_.count > 0) {
    queries_ = work.workspace.of(work.worker, engine.widened_).data();
    widened_ = queries_ + max_lanes * engine.shape_.head_dim;
  }
  if (engine.packed_.count > 0) packed_ = work.workspace.of(work.worker, engine.packed_).data();
  if (engine.pair_bias_.count > 0) pair_bias_ = work.workspace.of(work.worker, engine.pair_bias_).data();
  weights_ = work.workspace.of(work.worker, engine.weights_).data();
}

// A tile reads a row of K once, so that a copy pays from three tiles on: without one a column of 64 queries is 6 % faster.
KeyRows SoftmaxEngine::BlockPass::key_rows(const QueryBlock& of) const {
  const StoredRows k = rows_of_head(work_.arrays.k, of.batch, of.kv_head), v = rows_of_head(work_.arrays.v, of.batch, of.kv_head);
  const DType dtype = engine_.problem_.kv_dtype;
  KeyRows rows{.k = k.data,
               .v = v.data,
               .k_stride = k.stride,
               .v_stride = v.stride,
               .k_bytes = bytes_of(dtype, engine_.shape_.head_dim),
               .v_bytes = bytes_of(dtype, engine_.shape_.value_dim),
               .copy_k = tiles_.size > 2,
               .copy_v = engine_.compute_ == Compute::f32};  // its rows are read once for every few columns
  rows.layout = work_.arrays.layout;
  rows.layout.k_page_stride = bytes_of(dtype, rows.layout.k_page_stride);
  rows.layout.v_page_stride = bytes_of(dtype, rows.layout.v_page_stride);
  if (rows.layout.pages != nullptr) rows.layout.pages += of.batch * rows.layout.pages_stride;
  return rows;
}

bool SoftmaxEngine::BlockPass::run() {
  bool more = advance();
  take_up_next();
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
    soon_.keys = soon_.next = 0;
    take_up_next();
    more = advance();
    if (!more) look_beyond();
  }
  if (work_.division.splits == 1 && resume && (all_finite || guard_all_)) {
    for (std::size_t t = 0; t < tile_count; ++t) engine_.store(work_.arrays, tiles_, work_.block, t);
  }
  return all_finite;
}

void SoftmaxEngine::BlockPass::start_tile(std::size_t t) {
  const TileQueries& queries = tiles_.queries[t];
  const index_t width = engine_.shape_.head_dim;
  const std::byte* rows[max_lanes] = {};
  for (index_t i = 0; i < queries.count; ++i) rows[i] = q_.row(work_.block.row(queries.first + i));
  if (engine_.compute_ == Compute::f32 && engine_.problem_.dtype != DType::f32) {
    widen(engine_.problem_.dtype, rows, queries.count, width, queries_, width);
    for (index_t i = 0; i < queries.count; ++i) rows[i] = as_bytes(queries_ + i * width);
  }
  tiles_.ops[t]->load(tiles_.tile[t], engine_.shape_, rows, queries.count, engine_.factor_);
  if (work_.arrays.resume && work_.split == 0) resume_tile(t);
  if (work_.wide.load(std::memory_order_relaxed)) tiles_.tile[t].wide = true;
}

void SoftmaxEngine::BlockPass::resume_tile(std::size_t t) {
  const QueryBlock& block = work_.block;
  const TileQueries& queries = tiles_.queries[t];
  const float *rows[max_lanes], *lse[max_lanes];
  float own_lse[max_lanes];
  for (index_t i = 0; i < queries.count; ++i) {
    const index_t row = block.row(queries.first + i);
    rows[i] = out_.row(row);
    own_lse[i] = work_.arrays.lse(block.batch, block.head, row);
    if (potential_ != nullptr)
      own_lse[i] -= static_cast<float>(potential_[block.position(queries.first + i)] - potential_[queries.lowest]);
    lse[i] = own_lse + i;
  }
  tiles_.ops[t]->resume(tiles_.tile[t], engine_.shape_, rows, queries.count, lse);
}

// The values of neighbouring keys side by side, as bf16_tile_ops reads them.
void SoftmaxEngine::BlockPass::pack_panel() {
  const index_t count = panel_->count, width = engine_.shape_.value_dim;
  ATTN_ASSERT(count <= engine_.panel_limit_);
  pack_pairs(panel_->v.data(), count, width, packed_, width);
  for (index_t j = 0; j < count; j += 2)
    panel_->v[static_cast<std::size_t>(j)] = reinterpret_cast<const std::byte*>(packed_ + j / 2 * width);
  soon_.keys = count;
}

// Takes a tile through the panel; true when some batch was cut.
bool SoftmaxEngine::BlockPass::attend_panel(std::size_t t, bool guard) {
  const TileQueries& queries = tiles_.queries[t];
  soon_.queries = std::max(soon_.queries, queries.first + queries.count);
  const auto [first, end] = look_at_steps(t);
  soon_.keys = std::max(soon_.keys, end * key_step);
  if (potential_ != nullptr) bias_keys(t, first, end);
  if (mask_.data_handle() != nullptr) look_at_mask(t, first, end);
  bool any_cut = false;
  for (index_t s = first; s < end;) {
    if (seen_[s] == Sight::none) {
      ++s;
      continue;
    }
    KeyBatch batch = next_batch(t, s, end);
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

// Keys of the steps first..end-1, for the tile.
void SoftmaxEngine::BlockPass::bias_keys(std::size_t t, index_t first, index_t end) {
  const double own = potential_[tiles_.queries[t].lowest];
  for (index_t j = first * key_step; j < end * key_step; ++j)
    bias_[j] = static_cast<float>((own - potential_[panel_->key[static_cast<std::size_t>(j)]]) * log2_e);
}

// Takes away from what is seen of the steps first..end-1 what the mask hides, and has its other numbers ready for the batches.
void SoftmaxEngine::BlockPass::look_at_mask(std::size_t t, index_t first, index_t end) {
  if (pair_bias_ != nullptr)
    mask_pairs(t, first, end);
  else
    mask_keys(first, end);
  const index_t count = tiles_.queries[t].count;
  const std::uint64_t own = count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
  for (index_t s = first; s < end; ++s) {
    if (seen_[s] == Sight::none) continue;
    std::uint64_t every = ~std::uint64_t{0}, some = 0;
    for (index_t j = s * key_step; j < (s + 1) * key_step; ++j) {
      lanes_[j] = (seen_[s] == Sight::all ? ~std::uint64_t{0} : lanes_[j]) & (shown_[j] | ~own);
      every &= lanes_[j];
      some |= lanes_[j] & own;
    }
    seen_[s] = every == ~std::uint64_t{0} ? Sight::all : some != 0 ? Sight::some : Sight::none;
  }
}

// A mask that is the same for every query.
void SoftmaxEngine::BlockPass::mask_keys(index_t first, index_t end) {
  for (index_t j = first * key_step; j < end * key_step; ++j) {
    const float number = mask_(0, panel_->key[static_cast<std::size_t>(j)]);
    const bool hidden = std::isinf(number);
    shown_[j] = hidden ? 0 : ~std::uint64_t{0};
    bias_[j] = hidden ? 0.0f : number * static_cast<float>(log2_e);
  }
}

// A mask of pairs: its rows, of keys that lie side by side where they do, become lanes.
void SoftmaxEngine::BlockPass::mask_pairs(std::size_t t, index_t first, index_t end) {
  const TileQueries& queries = tiles_.queries[t];
  const index_t lanes = tiles_.ops[t]->lanes;
  const float* masks[max_lanes];  // of each lane; those past the queries have one, too
  for (index_t i = 0; i < lanes; ++i) masks[i] = mask_.row(work_.block.row(queries.first + std::min(i, queries.count - 1)));
  for (index_t s = first, stop; s < end; s = stop) {
    stop = s + 1;
    if (seen_[s] == Sight::none) continue;
    const auto* const keys = panel_->key.data() + s * key_step;
    const bool side_by_side = in_a_row(s);
    while (side_by_side && stop < end && seen_[stop] != Sight::none && in_a_row(stop) &&
           panel_->key[static_cast<std::size_t>(stop * key_step)] == keys[0] + (stop - s) * key_step)
      ++stop;
    float scattered[max_lanes][key_step];
    const float* rows[max_lanes];
    for (index_t i = 0; i < lanes; ++i) {
      for (index_t r = 0; !side_by_side && r < key_step; ++r) scattered[i][r] = masks[i][keys[r]];
      rows[i] = side_by_side ? masks[i] + keys[0] : scattered[i];
    }
    mask_to_lanes(rows, (stop - s) * key_step, static_cast<int>(lanes / engine_.ops_[0]->lanes), pair_bias_ + s * key_step * lanes,
                  shown_ + s * key_step);
  }
}

// The keys of a step follow each other; those that fill up the last one of a run do not.
bool SoftmaxEngine::BlockPass::in_a_row(index_t step) const {
  const auto* const keys = panel_->key.data() + step * key_step;
  for (index_t r = 1; r < key_step; ++r)
    if (keys[r] != keys[0] + r) return false;
  return true;
}

// From `step` on, which is seen. A stretch of seen steps is taken in batches of nearly equal length.
KeyBatch SoftmaxEngine::BlockPass::next_batch(std::size_t t, index_t& step, index_t end) {
  index_t stretch = step;
  while (stretch < end && seen_[stretch] != Sight::none) ++stretch;
  stretch -= step;
  const index_t from = step, steps = ceil_div(stretch, ceil_div(stretch * key_step, engine_.batch_limit_));
  std::uint64_t cut = 0;
  for (; step < from + steps; ++step) cut |= std::uint64_t{seen_[step] == Sight::some} << (step - from);
  return {.k = panel_->k.data() + from * key_step,
          .v = panel_->v.data() + from * key_step,
          .lanes = lanes_ + from * key_step,
          .cut = cut,
          .guard = false,
          .count = steps * key_step,
          .fetch = {soon_.rows[0], soon_.rows[1]},
          .bias = pair_bias_ != nullptr ? pair_bias_ + from * key_step * tiles_.ops[t]->lanes : bias_ + from * key_step};
}

// The next panel of this split's.
bool SoftmaxEngine::BlockPass::advance() {
  do {
    if (!stream_.next(rows_, *next_, next_copies_)) return false;
  } while (++number_ % work_.division.splits != work_.split);
  return true;
}

void SoftmaxEngine::BlockPass::take_up_next() {
  std::swap(panel_, next_);
  std::swap(copies_, next_copies_);
  if (engine_.compute_ == Compute::bf16_dot)
    pack_panel();
  else if (engine_.problem_.kv_dtype != DType::f32)
    widen_panel();
}

// Once for all tiles, when the rows are due, so that what the batches before have fetched of them is there.
void SoftmaxEngine::BlockPass::widen_panel() {
  const auto [head_dim, value_dim] = engine_.shape_;
  const index_t count = panel_->count;
  float *const k = widened_, *const v = widened_ + engine_.panel_limit_ * head_dim;
  ATTN_ASSERT(count <= engine_.panel_limit_);
  widen(engine_.problem_.kv_dtype, panel_->k.data(), count, head_dim, k, head_dim);
  widen(engine_.problem_.kv_dtype, panel_->v.data(), count, value_dim, v, value_dim);
  for (index_t j = 0; j < count; ++j) {
    panel_->k[static_cast<std::size_t>(j)] = as_bytes(k + j * head_dim);
    panel_->v[static_cast<std::size_t>(j)] = as_bytes(v + j * value_dim);
  }
  soon_.keys = count;  // none of them is to be fetched
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
    soon_.rows[1][n] = as_bytes(out_.row(row));
  }
  for (; n < room && soon_.queries < std::min(until, block.count + later.count); ++n, ++soon_.queries) {
    const index_t row = later.row(soon_.queries - block.count);
    soon_.rows[0][n] = later_q_.row(row);
    soon_.rows[1][n] = as_bytes(later_out_.row(row));
  }
  return n;
}

index_t SoftmaxEngine::BlockPass::list_keys(const KeyPanel& from, index_t& done, index_t n, index_t room) {
  const auto& [k_rows, v_rows] = soon_.rows;
  for (; n < room && done < from.count; ++done) {
    const std::byte *const k = from.k[static_cast<std::size_t>(done)], *const v = from.v[static_cast<std::size_t>(done)];
    // What is stored in fewer bytes than floats may come with the row before it.
    if (n > 0 && lies_in(k, rows_.k_bytes, k_rows[n - 1], engine_.shape_.head_dim) &&
        lies_in(v, rows_.v_bytes, v_rows[n - 1], engine_.shape_.value_dim))
      continue;
    soon_.rows[0][n] = k;
    soon_.rows[1][n] = v;
    ++n;
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
    for (const std::byte** rows : {soon_.rows[0], soon_.rows[1]}) rows[n] = rows[n - 1];
  }
  return n;
}

}  // namespace attn::kernels
