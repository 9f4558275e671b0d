#include "attn/kernels/softmax/engine.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"
#include "attn/kernels/machine/flush_denormals.hpp"
#include "attn/kernels/softmax/block_pass.hpp"
#include "attn/kernels/softmax/key_stream.hpp"

namespace attn::kernels {

namespace {

// A block's K and V stream from L2 or L3 once for all of its rows; 384 rows keep that below 1 byte a cycle at D = 64, and their
// transposed Q and O (192 KB) in L2. 192 rows lose 2 % at N = 8192 (Emerald Rapids, 2 MB L2, g++ 12).
constexpr index_t most_rows = 384;

}  // namespace

SoftmaxEngine::SoftmaxEngine(const Problem& problem, const EngineOptions& options, WorkspacePlan& plan)
    : problem_(problem),
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
  blocks_ = problem.batch * problem.heads * cut_.blocks_of_head();
  if (plan.threads() > 1 && blocks_ > 0 && blocks_ < index_t{2} * plan.threads()) {
    splits_ = std::clamp<index_t>(ceil_div(index_t{2} * plan.threads(), blocks_), 1,
                                  std::max<index_t>(1, problem.kv_len / (2 * usual_panel_keys)));
  }

  const index_t floats = tile_floats(round_up(cut_.part_rows(), lanes) + lanes, shape_);
  if (splits_ == 1) {
    tiles_ = plan.per_worker<float>(floats);
  } else {
    tiles_ = plan.shared<float>(blocks_ * splits_ * round_up(floats, 32));
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
  for (index_t first = 0; first < block.count;) {
    const index_t left = block.count - first;
    const TileOps& ops = *ops_[tile_vectors(left, ops_[0]->lanes) - 1];
    const index_t count = std::min(left, ops.lanes);
    const auto at = static_cast<std::size_t>(tiles.size++);
    ATTN_ASSERT(tiles.size <= most_tiles);
    const auto [lowest, highest] = position_range(block, first, count);
    tiles.ops[at] = &ops;
    tiles.queries[at] = {&block, first, count, lowest, highest};
    tiles.tile[at] = tile_in(std::exchange(free, free + tile_floats(ops.lanes, shape_)), ops.lanes, shape_);
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

std::span<std::uint64_t> SoftmaxEngine::flags(const Workspace& workspace, index_t slot) const {
  return workspace.shared(seen_).subspan(static_cast<std::size_t>(slot * most_tiles * 2), most_tiles * 2);
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

void SoftmaxEngine::attend(const EngineArrays& arrays, const Workspace& workspace, KeySchedule schedule, const QueryBlock& block,
                           const QueryBlock& later, index_t slot, int worker) const {
  const DenormalsAreZero zero;
  Tiles tiles = cut_into_tiles(block, tile_scratch(workspace, slot, worker));
  const BlockWork work{arrays, workspace, schedule, block, later, slot % splits_, worker};
  if (!BlockPass(*this, work, tiles, false).run()) BlockPass(*this, work, tiles, true).run();
  if (splits_ == 1) return;
  const std::span<std::uint64_t> seen = flags(workspace, slot);
  for (std::size_t t = 0; t < static_cast<std::size_t>(tiles.size); ++t) {
    seen[2 * t] = tiles.tile[t].unset;
    seen[2 * t + 1] = tiles.tile[t].fresh;
  }
}

// In order of the splits, so the same bits however the tasks were timed.
void SoftmaxEngine::merge(const EngineArrays& arrays, const Workspace& workspace, const QueryBlock& block, index_t number) const {
  const DenormalsAreZero zero;
  Tiles sum;
  for (index_t split = 0; split < splits_; ++split) {
    const index_t slot = number * splits_ + split;
    Tiles part = cut_into_tiles(block, tile_scratch(workspace, slot, 0));
    const std::span<const std::uint64_t> seen = flags(workspace, slot);
    for (std::size_t t = 0; t < static_cast<std::size_t>(part.size); ++t) {
      part.tile[t].unset = seen[2 * t];
      part.tile[t].fresh = seen[2 * t + 1] != 0;
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
    const QueryBlock block = cut_.block(problem_, static_cast<index_t>(number), rows);
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
  const auto block_of = [&](index_t task) { return cut_.block(problem_, order[static_cast<std::size_t>(task / splits_)], rows); };
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
    const QueryBlock block = cut_.block(problem_, number, rows);
    if (block.count > 0) merge(arrays, workspace, block, number);
  });
}

void SoftmaxEngine::run(const EngineArrays& arrays, const Workspace& workspace, KeySchedule schedule) const {
  ATTN_ASSERT(!cut_.listed());
  run(arrays, workspace, nullptr, schedule);
}

void SoftmaxEngine::run(const EngineArrays& arrays, const Workspace& workspace, RowSchedule rows, KeySchedule schedule) const {
  ATTN_ASSERT(cut_.listed());
  run(arrays, workspace, &rows, schedule);
}

void SoftmaxEngine::backward(const EngineArrays& given, const EngineGradients& gradients, const Workspace& workspace,
                             const RowSchedule* rows, KeySchedule schedule) const {
  ATTN_ASSERT(training_);
  EngineArrays arrays = given;
  if (arrays.lse.data_handle() == nullptr) arrays.lse = own_lse(workspace);
  backward_.run(problem_, arrays, gradients, workspace, rows, schedule);
}

void SoftmaxEngine::backward(const EngineArrays& arrays, const EngineGradients& gradients, const Workspace& workspace,
                             KeySchedule schedule) const {
  ATTN_ASSERT(!cut_.listed());
  backward(arrays, gradients, workspace, nullptr, schedule);
}

void SoftmaxEngine::backward(const EngineArrays& arrays, const EngineGradients& gradients, const Workspace& workspace,
                             RowSchedule rows, KeySchedule schedule) const {
  ATTN_ASSERT(cut_.listed());
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
