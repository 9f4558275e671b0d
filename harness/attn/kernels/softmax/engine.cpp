#include "attn/kernels/softmax/engine.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <new>
#include <numeric>

#include "attn/core/assert.hpp"
#include "attn/kernels/machine/flush_denormals.hpp"
#include "attn/kernels/softmax/key_stream.hpp"

namespace attn::kernels {

namespace {

// A block's K and V stream from L2 or L3 once for all of its rows; 384 rows keep that below 1 byte a cycle at D = 64, and their
// transposed Q and O (192 KB) in L2. 192 rows lose 2 % at N = 8192 (Emerald Rapids, 2 MB L2, g++ 12).
constexpr index_t most_rows = 384;
constexpr index_t most_tiles = 24;

constexpr index_t round_up(index_t n, index_t step) { return (n + step - 1) / step * step; }
constexpr index_t ceil_div(index_t n, index_t d) { return (n + d - 1) / d; }

}  // namespace

QueryCut::QueryCut(const Problem& problem, const QueryBlocks& queries) : problem_(problem), queries_(queries) {
  unit_rows_ = problem.q_len;
  switch (queries_.kind) {
    case QueryBlocks::Kind::contiguous:
      if (queries_.align > 0) {
        units_ = ceil_div(problem.q_len, queries_.align);
        unit_rows_ = std::min(queries_.align, problem.q_len);
      }
      break;
    case QueryBlocks::Kind::classes:
      units_ = std::min(queries_.step, problem.q_len);
      unit_rows_ = ceil_div(problem.q_len, queries_.step);
      break;
    case QueryBlocks::Kind::listed:
      units_ = queries_.blocks;
      unit_rows_ = queries_.rows;
      break;
  }
  part_rows_ = unit_rows_;
}

void QueryCut::cut(index_t rows, index_t lanes) {
  parts_ = std::max<index_t>(1, ceil_div(unit_rows_, rows));
  part_rows_ = std::max<index_t>(1, round_up(ceil_div(unit_rows_, parts_), unit_rows_ > lanes ? lanes : 1));
  parts_ = std::max<index_t>(1, ceil_div(unit_rows_, part_rows_));
}

QueryBlock QueryCut::block(index_t number, const RowSchedule* rows) const {
  QueryBlock block;
  // One part of all residue classes before the next: they lie in the same pages.
  const bool parts_first = queries_.kind != QueryBlocks::Kind::classes;
  const index_t part = parts_first ? number % parts_ : number / units_ % parts_;
  block.block = parts_first ? number / parts_ % units_ : number % units_;
  const index_t rest = number / (parts_ * units_);
  block.head = rest % problem_.heads;
  block.batch = rest / problem_.heads;
  block.kv_head = problem_.kv_head(block.head);
  block.shift = problem_.kv_len - problem_.q_len;
  index_t length = problem_.q_len;
  if (queries_.kind == QueryBlocks::Kind::contiguous && queries_.align > 0) {
    block.first = block.block * queries_.align;
    length = std::min(queries_.align, problem_.q_len - block.first);
  } else if (queries_.kind == QueryBlocks::Kind::classes) {
    block.first = block.block;
    block.step = queries_.step;
    length = ceil_div(problem_.q_len - block.first, block.step);
  } else if (queries_.kind == QueryBlocks::Kind::listed) {
    const std::span<const std::int32_t> list = (*rows)(block.batch, block.head, block.block);
    ATTN_ASSERT(static_cast<index_t>(list.size()) <= queries_.rows);
    length = static_cast<index_t>(list.size());
    block.rows = list.data() + std::min(part * part_rows_, length);
  }
  block.first += part * part_rows_ * block.step;
  block.count = std::clamp<index_t>(length - part * part_rows_, 0, part_rows_);
  return block;
}

struct SoftmaxEngine::Tiles {
  index_t size = 0;
  std::array<Tile, most_tiles> tile;
  std::array<TileQueries, most_tiles> queries;
  std::array<const TileOps*, most_tiles> ops;
};

SoftmaxEngine::SoftmaxEngine(const Problem& problem, const EngineOptions& options, WorkspacePlan& plan)
    : problem_(problem),
      queries_(options.queries),
      shape_{problem.head_dim, problem.value_dim},
      factor_(static_cast<float>(options.scale.value_or(problem.scale()) * 1.4426950408889634)),
      cut_(problem, options.queries),
      training_(plan.training()),
      lse_(training_ ? plan.shared<float>(problem.batch * problem.heads * problem.q_len) : Booking<float>{}),
      backward_(problem, options, factor_, plan) {
  ATTN_ASSERT(problem.head_dim >= 1 && problem.head_dim <= max_head_dim);
  ATTN_ASSERT(problem.value_dim >= 1 && problem.value_dim <= max_head_dim);
  for (int vectors = 1; vectors <= 3; ++vectors) ops_[vectors - 1] = &tile_ops(vectors);
  panel_limit_ = options.keys_per_query <= panel_keys ? panel_keys : usual_panel_keys;

  // Blocks as large as leave each thread several tasks; where even single tiles do not, their keys are split.
  const index_t lanes = ops_[2]->lanes;
  const index_t units = problem.batch * problem.heads * cut_.units();
  const index_t enough = plan.threads() == 1 ? 1 : 4 * plan.threads();
  index_t rows = std::min(most_rows, (most_tiles - 2) * lanes);
  while (rows > lanes && units * ceil_div(cut_.unit_rows(), rows) < enough) rows = round_up(rows / 2, lanes);
  cut_.cut(rows, lanes);
  blocks_ = cut_.blocks();
  if (plan.threads() > 1 && blocks_ > 0 && blocks_ < index_t{2} * plan.threads()) {
    splits_ = std::clamp<index_t>(ceil_div(index_t{2} * plan.threads(), blocks_), 1,
                                  std::max<index_t>(1, problem.kv_len / (2 * usual_panel_keys)));
  }

  const index_t tile_floats = (round_up(cut_.part_rows(), lanes) + lanes) * (problem.head_dim + problem.value_dim + 3);
  if (splits_ == 1) {
    tiles_ = plan.per_worker<float>(tile_floats);
  } else {
    tiles_ = plan.shared<float>(blocks_ * splits_ * round_up(tile_floats, 32));
    seen_ = plan.shared<std::uint64_t>(blocks_ * splits_ * most_tiles * 2);
  }
  weights_ = plan.per_worker<float>(batch_keys * max_lanes);
  copies_ = plan.per_worker<float>(2 * usual_panel_keys * (problem.head_dim + problem.value_dim));
  panels_ = plan.per_worker<std::byte>(2 * static_cast<index_t>(sizeof(KeyPanel)));
  cost_ = plan.shared<float>(blocks_);
  order_ = plan.shared<std::int32_t>(blocks_);
}

SoftmaxEngine::Tiles SoftmaxEngine::cut_into_tiles(const QueryBlock& block, std::span<float> scratch) const {
  Tiles tiles;
  float* free = scratch.data();
  const auto take = [&free](index_t count) { return std::exchange(free, free + count); };
  const index_t vector = ops_[0]->lanes;
  for (index_t first = 0; first < block.count;) {
    const index_t left = block.count - first;
    index_t vectors = std::min<index_t>(ceil_div(left, vector), 3);
    if (left > 3 * vector && left <= 4 * vector) vectors = 2;  // 2 + 2 beats 3 + 1
    const TileOps& ops = *ops_[vectors - 1];
    const index_t count = std::min(left, ops.lanes);
    const auto at = static_cast<std::size_t>(tiles.size++);
    ATTN_ASSERT(tiles.size <= most_tiles);
    const auto [lowest, highest] = position_range(block, first, count);
    tiles.ops[at] = &ops;
    tiles.queries[at] = {&block, first, count, lowest, highest};
    tiles.tile[at] = {.qt = take(ops.lanes * shape_.head_dim),
                      .ot = take(ops.lanes * shape_.value_dim),
                      .minus_ref = take(ops.lanes),
                      .sum = take(ops.lanes),
                      .batch_sum = take(ops.lanes),
                      .unset = 0,
                      .fresh = true};
    first += count;
  }
  ATTN_ASSERT(free <= scratch.data() + scratch.size());
  return tiles;
}

std::span<float> SoftmaxEngine::tile_scratch(const Workspace& workspace, index_t slot, int worker) const {
  if (splits_ == 1) return workspace.of(worker, tiles_);
  const auto floats = static_cast<std::size_t>(tiles_.count / (blocks_ * splits_));
  return workspace.shared(tiles_).subspan(static_cast<std::size_t>(slot) * floats, floats);
}

void SoftmaxEngine::store(const EngineArrays& arrays, const Tiles& tiles, const QueryBlock& block, std::size_t t) const {
  const auto out = arrays.out[block.batch][block.head];
  const bool with_lse = arrays.lse.data_handle() != nullptr;
  float* rows[max_lanes];
  float* lse[max_lanes];
  const TileQueries& queries = tiles.queries[t];
  for (index_t i = 0; i < queries.count; ++i) {
    const index_t row = block.row(queries.first + i);
    rows[i] = out.row(row);
    if (with_lse) lse[i] = &arrays.lse(block.batch, block.head, row);
  }
  tiles.ops[t]->store(tiles.tile[t], shape_, rows, queries.count, with_lse ? lse : nullptr);
}

// Takes the tiles from load to the last key and, unless they are parts, to the output. False when it is to be done again with
// `guard_all`: an infinity or a NaN came out where some batch was cut, maybe of a value that its lane should not have seen.
bool SoftmaxEngine::attend_keys(const EngineArrays& arrays, const Workspace& workspace, KeySchedule schedule,
                                const QueryBlock& block, const QueryBlock& later, Tiles& tiles, index_t split, int worker,
                                bool guard_all) const {
  const auto tile_count = static_cast<std::size_t>(tiles.size);
  const auto q = arrays.q[block.batch][block.head], later_q = arrays.q[later.batch][later.head];
  const auto out = arrays.out[block.batch][block.head], later_out = arrays.out[later.batch][later.head];
  const auto start_tile = [&](std::size_t t) {
    const TileQueries& queries = tiles.queries[t];
    const float* rows[max_lanes];
    for (index_t i = 0; i < queries.count; ++i) rows[i] = q.row(block.row(queries.first + i));
    tiles.ops[t]->load(tiles.tile[t], shape_, rows, queries.count, factor_);
    if (!arrays.resume || split != 0) return;
    const float* lse[max_lanes];
    for (index_t i = 0; i < queries.count; ++i) {
      rows[i] = out.row(block.row(queries.first + i));
      lse[i] = &arrays.lse(block.batch, block.head, block.row(queries.first + i));
    }
    tiles.ops[t]->resume(tiles.tile[t], shape_, rows, queries.count, lse);
  };

  // A tile reads a row of K once, so that a copy pays from three tiles on: without one a column of 64 queries is 6 % faster.
  const bool copy_k = tiles.size > 2;
  const auto key_rows = [&](const QueryBlock& of) -> KeyRows {
    const auto k = arrays.k[of.batch][of.kv_head];
    const auto v = arrays.v[of.batch][of.kv_head];
    return {k.data_handle(), v.data_handle(), k.stride(0), v.stride(0), shape_.head_dim, shape_.value_dim, copy_k};
  };
  const KeyRows rows = key_rows(block);
  KeyList list(problem_.kv_len);
  schedule(block, list);
  const auto [lowest, highest] = position_range(block, 0, block.count);
  KeyStream stream(list, lowest, highest, problem_.causal, panel_limit_);

  std::byte* memory = workspace.of(worker, panels_).data();
  KeyPanel* panel = new (memory) KeyPanel;
  KeyPanel* next = new (memory + sizeof(KeyPanel)) KeyPanel;
  float* copies = workspace.of(worker, copies_).data();
  float* next_copies = copies + copies_.count / 2;
  index_t number = -1;
  const auto advance = [&] {
    do {
      if (!stream.next(rows, *next, next_copies)) return false;
    } while (++number % splits_ != split);
    return true;
  };
  const auto swap_panels = [&] {
    std::swap(panel, next);
    std::swap(copies, next_copies);
  };

  // Cold rows cost a short window a quarter of its time, so every batch fetches some that come after it: queries with their output
  // rows, and keys with their values. What follows the last panel of a block are the first keys of the later block.
  const auto look_beyond = [&] {
    if (later.count == 0) return;
    KeyList later_list(problem_.kv_len);
    schedule(later, later_list);
    const auto [low, high] = position_range(later, 0, std::min(later.count, ops_[2]->lanes));
    KeyStream(later_list, low, high, problem_.causal, usual_panel_keys).next(key_rows(later), *next, nullptr);
  };
  const float* soon[2][batch_keys];
  index_t met_queries = 0;        // rows read or listed: of the block, then of the later one
  index_t met = 0, met_next = 0;  // of the panel, of the next one
  const auto list_queries = [&](index_t until, index_t n, index_t room) {
    for (; n < room && met_queries < std::min(until, block.count); ++n, ++met_queries) {
      const index_t row = block.row(met_queries);
      soon[0][n] = q.row(row);
      soon[1][n] = out.row(row);
    }
    for (; n < room && met_queries < std::min(until, block.count + later.count); ++n, ++met_queries) {
      const index_t row = later.row(met_queries - block.count);
      soon[0][n] = later_q.row(row);
      soon[1][n] = later_out.row(row);
    }
    return n;
  };
  const auto list_keys = [&](const KeyPanel& from, index_t& done, index_t n, index_t room) {
    for (; n < room && done < from.count; ++n, ++done) {
      soon[0][n] = from.k[static_cast<std::size_t>(done)];
      soon[1][n] = from.v[static_cast<std::size_t>(done)];
    }
    return n;
  };
  const auto list_soon = [&](std::size_t t, index_t room) {
    const index_t lanes = tiles.ops[t]->lanes;
    const index_t end = tiles.queries[t].first + tiles.queries[t].count;
    index_t n = list_queries(end + lanes, 0, room);
    const index_t room_for_keys = std::min(room, n + (panel_limit_ == panel_keys ? lanes + 16 : usual_panel_keys));
    n = list_keys(*panel, met, n, room_for_keys);
    n = list_keys(*next, met_next, n, room_for_keys);
    n = list_queries(end + 2 * lanes, n, room);
    for (; n % key_step != 0; ++n) soon[0][n] = soon[0][n - 1], soon[1][n] = soon[1][n - 1];
    return n;
  };

  float* weights = workspace.of(worker, weights_).data();
  std::uint64_t lanes[panel_keys];
  Sight seen[panel_steps];
  // Takes a tile through the panel; true when some batch was cut.
  const auto attend_panel = [&](std::size_t t, bool guard) {
    const auto [first_step, steps] = steps_in_reach(*panel, tiles.queries[t]);
    if (sees_whole(*panel, tiles.queries[t])) {
      std::fill(seen + first_step, seen + steps, Sight::all);
    } else {
      for (index_t s = first_step; s < steps; ++s)
        seen[s] = sight(*panel, s, tiles.queries[t], problem_.causal, lanes + s * key_step);
    }
    met = std::max(met, steps * key_step);
    bool any_cut = false;
    for (index_t s = first_step; s < steps;) {
      if (seen[s] == Sight::none) {
        ++s;
        continue;
      }
      // A stretch of seen steps, in batches of nearly equal length.
      index_t stretch = s;
      while (stretch < steps && seen[stretch] != Sight::none) ++stretch;
      const index_t end = s + ceil_div(stretch - s, ceil_div((stretch - s) * key_step, batch_keys));
      const index_t from = s * key_step;
      std::uint64_t cut = 0;
      for (index_t bit = 0; s < end; ++s, ++bit) cut |= std::uint64_t{seen[s] == Sight::some} << bit;
      any_cut = any_cut || cut != 0;
      const index_t count = s * key_step - from;
      const KeyBatch batch{.k = panel->k.data() + from,
                           .v = panel->v.data() + from,
                           .lanes = lanes + from,
                           .cut = cut,
                           .guard = guard,
                           .count = count,
                           .fetch = {soon[0], soon[1]},
                           .fetch_count = list_soon(t, count)};
      tiles.ops[t]->attend(tiles.tile[t], shape_, batch, weights);
    }
    return any_cut;
  };
  const auto finite = [&](std::size_t t) { return tiles.ops[t]->finite(tiles.tile[t], shape_); };

  bool more = advance();
  swap_panels();
  more = more && advance();
  if (!more) look_beyond();
  if (!more && splits_ == 1) {
    // One panel, or none: each tile is done in one go, in arrays that stay in the first cache.
    for (std::size_t t = 0; t < tile_count; ++t) {
      tiles.tile[t] = tiles.tile[0];
      met_queries = std::max(met_queries, tiles.queries[t].first + tiles.queries[t].count);
      start_tile(t);
      if (attend_panel(t, false) && !finite(t)) {
        start_tile(t);
        attend_panel(t, true);
      }
      store(arrays, tiles, block, t);
    }
    return true;
  }
  const bool store_early = splits_ == 1 && !arrays.resume;  // while the tile is hot; what resumes may have to start again
  bool any_cut[most_tiles] = {};
  bool all_finite = true;
  for (bool first = true, last = false; !last; first = false) {
    last = !more;
    for (std::size_t t = 0; t < tile_count; ++t) {
      met_queries = std::max(met_queries, tiles.queries[t].first + tiles.queries[t].count);
      if (first) start_tile(t);
      if (attend_panel(t, guard_all)) any_cut[t] = true;
      if (!last) continue;
      if (any_cut[t]) all_finite = all_finite && finite(t);
      if (store_early) store(arrays, tiles, block, t);
    }
    if (last) break;
    swap_panels();
    more = advance();
    if (!more) look_beyond();
    met = met_next = 0;
  }
  if (splits_ == 1 && arrays.resume && (all_finite || guard_all)) {
    for (std::size_t t = 0; t < tile_count; ++t) store(arrays, tiles, block, t);
  }
  return all_finite;
}

void SoftmaxEngine::attend(const EngineArrays& arrays, const Workspace& workspace, KeySchedule schedule, const QueryBlock& block,
                           const QueryBlock& later, index_t slot, int worker) const {
  const DenormalsAreZero zero;
  const index_t split = slot % splits_;
  Tiles tiles = cut_into_tiles(block, tile_scratch(workspace, slot, worker));
  const auto tile_count = static_cast<std::size_t>(tiles.size);
  if (!attend_keys(arrays, workspace, schedule, block, later, tiles, split, worker, false)) {
    attend_keys(arrays, workspace, schedule, block, later, tiles, split, worker, true);
  }
  if (splits_ == 1) return;
  const auto flags = workspace.shared(seen_).subspan(static_cast<std::size_t>(slot * most_tiles * 2));
  for (std::size_t t = 0; t < tile_count; ++t) {
    flags[2 * t] = tiles.tile[t].unset;
    flags[2 * t + 1] = tiles.tile[t].fresh;
  }
}

// In order of the splits, so the same bits however the tasks were timed.
void SoftmaxEngine::merge(const EngineArrays& arrays, const Workspace& workspace, const QueryBlock& block, index_t number) const {
  const DenormalsAreZero zero;
  Tiles sum;
  for (index_t split = 0; split < splits_; ++split) {
    const index_t slot = number * splits_ + split;
    Tiles part = cut_into_tiles(block, tile_scratch(workspace, slot, 0));
    const auto flags = workspace.shared(seen_).subspan(static_cast<std::size_t>(slot * most_tiles * 2));
    for (std::size_t t = 0; t < static_cast<std::size_t>(part.size); ++t) {
      part.tile[t].unset = flags[2 * t];
      part.tile[t].fresh = flags[2 * t + 1] != 0;
      if (split > 0) part.ops[t]->merge(sum.tile[t], shape_, part.tile[t]);
    }
    if (split == 0) sum = part;
  }
  for (std::size_t t = 0; t < static_cast<std::size_t>(sum.size); ++t) store(arrays, sum, block, t);
}

void SoftmaxEngine::order_tasks(std::span<std::int32_t> order, std::span<float> cost, const RowSchedule* rows,
                                KeySchedule schedule) const {
  for (std::size_t number = 0; number < order.size(); ++number) {
    order[number] = static_cast<std::int32_t>(number);
    cost[number] = 0;
    const QueryBlock block = cut_.block(static_cast<index_t>(number), rows);
    if (block.count == 0) continue;
    KeyList list(problem_.kv_len);
    schedule(block, list);
    const auto [lowest, highest] = position_range(block, 0, block.count);
    cost[number] = static_cast<float>(KeyStream(list, lowest, highest, problem_.causal).remaining() * block.count);
  }
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    const float cost_a = cost[static_cast<std::size_t>(a)], cost_b = cost[static_cast<std::size_t>(b)];
    return cost_a != cost_b ? cost_a > cost_b : a < b;
  });
}

View<float, 3> SoftmaxEngine::own_lse(const Workspace& workspace) const {
  return {workspace.shared(lse_).data(), {problem_.batch, problem_.heads, problem_.q_len}};
}

void SoftmaxEngine::run(const EngineArrays& given, const Workspace& workspace, const RowSchedule* rows,
                        KeySchedule schedule) const {
  EngineArrays arrays = given;
  if (training_ && arrays.lse.data_handle() == nullptr) arrays.lse = own_lse(workspace);
  ATTN_ASSERT(arrays.q.stride(3) == 1 && arrays.k.stride(3) == 1 && arrays.v.stride(3) == 1 && arrays.out.stride(3) == 1);
  ATTN_ASSERT(!arrays.resume || arrays.lse.data_handle() != nullptr);
  const std::span<std::int32_t> order = workspace.shared(order_);
  if (arena_threads() == 1)
    std::iota(order.begin(), order.end(), 0);
  else
    order_tasks(order, workspace.shared(cost_), rows, schedule);
  const index_t tasks = blocks_ * splits_;
  const auto block_of = [&](index_t task) { return cut_.block(order[static_cast<std::size_t>(task / splits_)], rows); };
  parallel_tasks(tasks, [&](index_t task, int worker) {
    const QueryBlock block = block_of(task);
    if (block.count == 0) return;
    // Workers take tasks in turn, so this is most likely the one that this worker will take up next.
    const index_t later = task + arena_threads();
    attend(arrays, workspace, schedule, block, later < tasks ? block_of(later) : QueryBlock{},
           order[static_cast<std::size_t>(task / splits_)] * splits_ + task % splits_, worker);
  });
  if (splits_ == 1) return;
  parallel_tasks(blocks_, [&](index_t number, int) {
    const QueryBlock block = cut_.block(number, rows);
    if (block.count > 0) merge(arrays, workspace, block, number);
  });
}

void SoftmaxEngine::run(const EngineArrays& arrays, const Workspace& workspace, KeySchedule schedule) const {
  ATTN_ASSERT(queries_.kind != QueryBlocks::Kind::listed);
  run(arrays, workspace, nullptr, schedule);
}

void SoftmaxEngine::run(const EngineArrays& arrays, const Workspace& workspace, RowSchedule rows, KeySchedule schedule) const {
  ATTN_ASSERT(queries_.kind == QueryBlocks::Kind::listed);
  run(arrays, workspace, &rows, schedule);
}

void SoftmaxEngine::backward(const EngineArrays& given, const EngineGradients& gradients, const Workspace& workspace,
                             const RowSchedule* rows, KeySchedule schedule) const {
  ATTN_ASSERT(training_);
  EngineArrays arrays = given;
  if (arrays.lse.data_handle() == nullptr) arrays.lse = own_lse(workspace);
  backward_.run(arrays, gradients, workspace, rows, schedule);
}

void SoftmaxEngine::backward(const EngineArrays& arrays, const EngineGradients& gradients, const Workspace& workspace,
                             KeySchedule schedule) const {
  ATTN_ASSERT(queries_.kind != QueryBlocks::Kind::listed);
  backward(arrays, gradients, workspace, nullptr, schedule);
}

void SoftmaxEngine::backward(const EngineArrays& arrays, const EngineGradients& gradients, const Workspace& workspace,
                             RowSchedule rows, KeySchedule schedule) const {
  ATTN_ASSERT(queries_.kind == QueryBlocks::Kind::listed);
  backward(arrays, gradients, workspace, &rows, schedule);
}

void SoftmaxEngine::leave_out(std::span<const std::int32_t> rows, const Workspace& workspace) const {
  ATTN_ASSERT(training_);
  const View<float, 3> lse = own_lse(workspace);
  for (index_t head = 0; head < problem_.batch * problem_.heads; ++head) {
    for (const std::int32_t row : rows)
      lse(head / problem_.heads, head % problem_.heads, row) = std::numeric_limits<float>::infinity();
  }
}

}  // namespace attn::kernels
