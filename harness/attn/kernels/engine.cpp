#include "attn/kernels/engine.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <new>

#include "attn/core/assert.hpp"
#include "attn/kernels/flush_denormals.hpp"
#include "attn/kernels/key_stream.hpp"

namespace attn::kernels {

namespace {

// A block's K and V stream from L2 or L3 once for all of its rows; 384 rows keep that below 1 byte a cycle at D = 64, and their
// transposed Q and O (192 KB) in L2. 192 rows lose 2 % at N = 8192 (Emerald Rapids, 2 MB L2, g++ 12).
constexpr index_t most_rows = 384;
constexpr index_t most_tiles = 24;

constexpr index_t round_up(index_t n, index_t step) { return (n + step - 1) / step * step; }
constexpr index_t ceil_div(index_t n, index_t d) { return (n + d - 1) / d; }

// Vectors of the tile that spends least on a window of `keys`: a tile computes keys + lanes columns for each query, at a
// fraction of peak that grows with its width (measured on Emerald Rapids, D = 64).
int choose_width(index_t keys, const TileOps* const (&ops)[3]) {
  constexpr double fraction[3] = {0.62, 0.86, 0.91};
  int best = 3;
  double least = 0;
  for (int vectors = 3; vectors >= 1; --vectors) {
    const double cost = (static_cast<double>(keys) + static_cast<double>(ops[vectors - 1]->lanes)) / fraction[vectors - 1];
    if (vectors == 3 || cost < least) least = cost, best = vectors;
  }
  return best;
}

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
  const index_t part = number % parts_;
  index_t rest = number / parts_;
  block.block = rest % units_;
  rest /= units_;
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
  widest_ = choose_width(std::min(options.keys_per_query, problem.kv_len), ops_);

  panel_limit_ = options.keys_per_query <= panel_keys ? panel_keys : usual_panel_keys;

  // Blocks as large as leave each thread several tasks; where even single tiles do not, their keys are split.
  const index_t lanes = ops_[widest_ - 1]->lanes;
  const index_t units = problem.batch * problem.heads * cut_.units();
  const index_t enough = plan.threads() == 1 ? 1 : 4 * plan.threads();
  index_t rows = std::min(most_rows, (most_tiles - 2) * lanes);
  while (rows > lanes && units * ceil_div(cut_.unit_rows(), rows) < enough) rows = round_up(rows / 2, lanes);
  cut_.cut(rows, lanes);
  blocks_ = cut_.blocks();
  if (plan.threads() > 1 && blocks_ > 0 && blocks_ < 2 * plan.threads()) {
    splits_ = std::clamp<index_t>(ceil_div(2 * plan.threads(), blocks_), 1, std::max<index_t>(1, problem.kv_len / (2 * usual_panel_keys)));
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
    index_t vectors = std::min<index_t>(ceil_div(left, vector), widest_);
    if (widest_ == 3 && left > 3 * vector && left <= 4 * vector) vectors = 2;  // 2 + 2 beats 3 + 1
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

// Takes the tiles from load to the last key and, unless they resume or are parts, to the output; true when some batch was cut.
bool SoftmaxEngine::attend_keys(const EngineArrays& arrays, const Workspace& workspace, KeySchedule schedule, const QueryBlock& block,
                                Tiles& tiles, index_t split, int worker, bool guard) const {
  const auto tile_count = static_cast<std::size_t>(tiles.size);

  const auto q = arrays.q[block.batch][block.head];
  const auto out = arrays.out[block.batch][block.head];
  const auto start_tile = [&](std::size_t t) {
    const TileQueries& queries = tiles.queries[t];
    const float* rows[max_lanes];
    for (index_t i = 0; i < queries.count; ++i) rows[i] = q.row(block.row(queries.first + i));
    tiles.ops[t]->load(tiles.tile[t], shape_, rows, queries.count, factor_);
    if (!arrays.resume || split != 0) return;
    const float* lse[max_lanes];
    for (index_t i = 0; i < queries.count; ++i) {
      const index_t row = block.row(queries.first + i);
      rows[i] = out.row(row);
      lse[i] = &arrays.lse(block.batch, block.head, row);
    }
    tiles.ops[t]->resume(tiles.tile[t], shape_, rows, queries.count, lse);
  };
  // The next tile's queries and this tile's output rows, fetched by its first batch: cold, they cost a short window 12 %.
  const float* soon[2][batch_keys];
  const auto list_soon = [&](std::size_t t, index_t count) {
    const TileQueries& own = tiles.queries[t];
    const TileQueries& next = tiles.queries[std::min(t + 1, tile_count - 1)];
    for (index_t j = 0; j < count; ++j) {
      soon[0][j] = j < next.count ? q.row(block.row(next.first + j)) : soon[0][j - next.count];
      soon[1][j] = j < own.count ? out.row(block.row(own.first + j)) : soon[1][j - own.count];
    }
  };

  const auto k = arrays.k[block.batch][block.kv_head];
  const auto v = arrays.v[block.batch][block.kv_head];
  const KeyRows rows{k.data_handle(), v.data_handle(), k.stride(0), v.stride(0), shape_.head_dim, shape_.value_dim};
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

  float* weights = workspace.of(worker, weights_).data();
  std::uint64_t lanes[panel_keys];
  Sight seen[panel_steps];
  const bool store_early = splits_ == 1 && !arrays.resume;  // while the tile is hot; what resumes may have to start again
  bool any_cut = false;
  bool more = advance();
  if (!more) {
    for (std::size_t t = 0; t < tile_count; ++t) {
      start_tile(t);
      if (store_early) store(arrays, tiles, block, t);
    }
  }
  for (bool first_panel = true; more; first_panel = false) {
    swap_panels();
    more = advance();
    index_t fetched = 0;  // rows of the next panel
    for (std::size_t t = 0; t < tile_count; ++t) {
      if (first_panel) start_tile(t);
      const auto [first_step, steps] = steps_in_reach(*panel, tiles.queries[t]);
      for (index_t s = first_step; s < steps; ++s) seen[s] = sight(*panel, s, tiles.queries[t], problem_.causal, lanes + s * key_step);
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
        KeyBatch batch{.k = panel->k.data() + from,
                       .v = panel->v.data() + from,
                       .lanes = lanes + from,
                       .cut = cut,
                       .guard = guard,
                       .count = s * key_step - from,
                       .fetch = {nullptr, nullptr},
                       .fetch_floats = {shape_.head_dim, shape_.value_dim}};
        if (tiles.tile[t].fresh && t > 0) {
          list_soon(t, batch.count);
          batch.fetch[0] = soon[0];
          batch.fetch[1] = soon[1];
        } else if (more && fetched < next->count) {
          const index_t first = std::min(fetched, std::max<index_t>(0, next->count - batch.count));
          batch.fetch[0] = next->k.data() + first;
          batch.fetch[1] = next->v.data() + first;
          fetched = first + batch.count;
        }
        tiles.ops[t]->attend(tiles.tile[t], shape_, batch, weights);
      }
      if (!more && store_early) store(arrays, tiles, block, t);
    }
  }

  return any_cut;
}

void SoftmaxEngine::attend(const EngineArrays& arrays, const Workspace& workspace, KeySchedule schedule, const QueryBlock& block,
                           index_t slot, int worker) const {
  const DenormalsAreZero zero;
  const index_t split = slot % splits_;
  Tiles tiles = cut_into_tiles(block, tile_scratch(workspace, slot, worker));
  const auto tile_count = static_cast<std::size_t>(tiles.size);
  if (attend_keys(arrays, workspace, schedule, block, tiles, split, worker, false)) {
    // An infinity or NaN came out: it may be a value that its lane should not have seen.
    bool finite = true;
    for (std::size_t t = 0; t < tile_count; ++t) finite = finite && tiles.ops[t]->finite(tiles.tile[t], shape_);
    if (!finite) attend_keys(arrays, workspace, schedule, block, tiles, split, worker, true);
  }
  if (splits_ == 1) {
    for (std::size_t t = 0; arrays.resume && t < tile_count; ++t) store(arrays, tiles, block, t);
    return;
  }
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

void SoftmaxEngine::run(const EngineArrays& given, const Workspace& workspace, const RowSchedule* rows, KeySchedule schedule) const {
  EngineArrays arrays = given;
  if (training_ && arrays.lse.data_handle() == nullptr) arrays.lse = own_lse(workspace);
  ATTN_ASSERT(arrays.q.stride(3) == 1 && arrays.k.stride(3) == 1 && arrays.v.stride(3) == 1 && arrays.out.stride(3) == 1);
  ATTN_ASSERT(!arrays.resume || arrays.lse.data_handle() != nullptr);
  const std::span<std::int32_t> order = workspace.shared(order_);
  order_tasks(order, workspace.shared(cost_), rows, schedule);
  parallel_tasks(blocks_ * splits_, [&](index_t task, int worker) {
    const index_t number = order[static_cast<std::size_t>(task / splits_)];
    const QueryBlock block = cut_.block(number, rows);
    if (block.count > 0) attend(arrays, workspace, schedule, block, number * splits_ + task % splits_, worker);
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

void SoftmaxEngine::backward(const EngineArrays& arrays, const EngineGradients& gradients, const Workspace& workspace, RowSchedule rows,
                             KeySchedule schedule) const {
  ATTN_ASSERT(queries_.kind == QueryBlocks::Kind::listed);
  backward(arrays, gradients, workspace, &rows, schedule);
}

void SoftmaxEngine::leave_out(std::span<const std::int32_t> rows, const Workspace& workspace) const {
  ATTN_ASSERT(training_);
  const View<float, 3> lse = own_lse(workspace);
  for (index_t head = 0; head < problem_.batch * problem_.heads; ++head) {
    for (const std::int32_t row : rows) lse(head / problem_.heads, head % problem_.heads, row) = std::numeric_limits<float>::infinity();
  }
}

}  // namespace attn::kernels
