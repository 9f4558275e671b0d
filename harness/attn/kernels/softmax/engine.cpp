#include "attn/kernels/softmax/engine.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <numeric>
#include <utility>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"
#include "attn/exec/seating.hpp"
#include "attn/kernels/machine/flush_denormals.hpp"
#include "attn/kernels/machine/widen.hpp"
#include "attn/kernels/softmax/block_pass.hpp"
#include "attn/kernels/softmax/key_stream.hpp"
#include "attn/kernels/softmax/tile_bf16.hpp"

namespace attn::kernels {

namespace {

// A block's K and V stream from L2 or L3 once for all of its rows; 384 rows keep that below 1 byte a cycle at D = 64, and their
// transposed Q and O (192 KB) in L2. 192 rows lose 2 % at N = 8192 (Emerald Rapids, 2 MB L2, g++ 12).
constexpr index_t most_rows = 384;
index_t most_rows_of(index_t lanes) { return std::min(most_rows, (most_tiles - 2) * lanes); }

constexpr double log2_e = 1.4426950408889634;

Scoring scoring_of(const Problem& p, const EngineOptions& options) {
  ATTN_ASSERT(!p.mask.given() || (!options.biased && options.softcap == 0));
  if (p.mask.given()) return p.mask.rows > 1 ? Scoring::paired : Scoring::biased;
  return options.biased ? Scoring::biased : options.softcap > 0 ? Scoring::capped : Scoring::plain;
}

bool is_mask_of(const Problem& p, const View<const float, 4>& mask) {
  const auto& [batch, heads, rows] = p.mask;
  return p.mask.given() ? mask.extents() == std::array{batch, heads, rows, p.kv_len} : mask.data_handle() == nullptr;
}

const TileOps& ops_of(Compute compute, Scoring scoring, int vectors) {
  return compute == Compute::bf16_dot ? bf16_tile_ops(vectors) : scored_tile_ops(scoring, vectors);
}

}  // namespace

SoftmaxEngine::SoftmaxEngine(const Problem& problem, const EngineOptions& options, WorkspacePlan& plan)
    : problem_(problem),
      options_(options),
      compute_(options.compute.value_or(compute_of(problem))),
      shape_{problem.head_dim, problem.value_dim},
      scoring_(scoring_of(problem, options)),
      factor_(static_cast<float>(options.scale.value_or(problem.scale()) * (options.softcap > 0 ? 1 / options.softcap : log2_e))),
      ops_{&ops_of(compute_, scoring_, 1), &ops_of(compute_, scoring_, 2), &ops_of(compute_, scoring_, 3)},
      threads_(plan.threads()),
      panel_limit_(options.keys_per_query <= panel_keys ? panel_keys
                   : compute_ == Compute::bf16_dot      ? dot_panel_keys
                                                        : usual_panel_keys),
      batch_limit_(compute_ == Compute::bf16_dot ? dot_batch_keys : batch_keys),
      whole_(divide(problem)),
      training_(plan.training()),
      lse_(training_ ? plan.shared<float>(problem.batch * problem.heads * problem.q_len) : Booking<float>{}),
      backward_(problem, options, factor_, plan) {
  ATTN_ASSERT(problem.head_dim >= 1 && problem.head_dim <= max_head_dim);
  ATTN_ASSERT(problem.value_dim >= 1 && problem.value_dim <= max_head_dim);
  ATTN_ASSERT(!training_ || (compute_ == Compute::f32 && !widens() && scoring_ == Scoring::plain));
  ATTN_ASSERT(scoring_ == Scoring::plain || (compute_ == Compute::f32 && (!options.biased || options.softcap == 0)));
  ATTN_ASSERT(compute_ == Compute::f32 || (problem.dtype == DType::bf16 && problem.kv_dtype == DType::bf16));
  book(plan);
}

// Blocks as large as leave each thread several tasks; where even single tiles do not, their keys are split.
SoftmaxEngine::Division SoftmaxEngine::divide(const Problem& problem, index_t first_batch) const {
  Division division{.problem = problem, .cut = {problem, options_.queries}, .first_batch = first_batch};
  const index_t lanes = ops_[2]->lanes;
  const index_t units = problem.batch * problem.heads * division.cut.units();
  const index_t enough = threads_ == 1 ? 1 : 4 * threads_;
  index_t rows = most_rows_of(lanes);
  while (rows > lanes && units * ceil_div(division.cut.unit_rows(), rows) < enough) rows = round_up(rows / 2, lanes);
  division.cut.cut(rows, lanes);
  const index_t blocks = division.blocks = problem.batch * problem.heads * division.cut.blocks_of_head();
  if (threads_ > 1 && blocks > 0 && blocks < index_t{2} * threads_) {
    division.splits = std::clamp<index_t>(ceil_div(index_t{2} * threads_, blocks), 1,
                                          std::max<index_t>(1, problem.kv_len / (2 * usual_panel_keys)));
  }
  return division;
}

void SoftmaxEngine::book(WorkspacePlan& plan) {
  const index_t lanes = ops_[2]->lanes, unit_rows = whole_.cut.unit_rows();
  index_t rows = round_up(whole_.cut.part_rows(), lanes), blocks = whole_.blocks;
  split_slots_ = whole_.splits > 1 ? blocks * whole_.splits : 0;
  index_t split_rows = rows;
  const bool any_lengths = problem_.ragged || problem_.pass == Pass::decode;
  if (any_lengths) {
    // A sequence alone has blocks of up to as many rows; where its keys are split, fewer than two a thread of one tile each.
    rows = std::min(most_rows_of(lanes), round_up(unit_rows, lanes));
    split_rows = lanes;
    split_slots_ = threads_ > 1 ? 4 * threads_ : 0;
    blocks = std::max(blocks, problem_.heads * (whole_.cut.units() + 1) * ceil_div(std::max<index_t>(1, unit_rows), lanes));
  }
  if (whole_.splits == 1 || any_lengths) tiles_ = plan.per_worker<float>(tile_floats(rows + lanes, shape_));
  if (split_slots_ > 0) {
    split_tiles_ = plan.shared<float>(split_slots_ * round_up(tile_floats(split_rows + lanes, shape_), 32));
    seen_ = plan.shared<std::uint64_t>(split_slots_ * most_tiles * 2);
  }
  weights_ = plan.per_worker<float>(batch_limit_ * max_lanes);
  const index_t panel_floats = shape_.head_dim + shape_.value_dim;
  const bool dot = compute_ == Compute::bf16_dot;
  if (problem_.kv_dtype == DType::f32 || dot)
    copies_ = plan.per_worker<std::byte>(2 * usual_panel_keys * bytes_of(problem_.kv_dtype, panel_floats));
  if (widens()) widened_ = plan.per_worker<float>(panel_limit_ * panel_floats + max_lanes * shape_.head_dim);
  if (dot) packed_ = plan.per_worker<std::uint32_t>(panel_limit_ / 2 * shape_.value_dim);
  if (scoring_ == Scoring::paired) pair_bias_ = plan.per_worker<float>(panel_limit_ * max_lanes);
  panels_ = plan.per_worker<std::byte>(2 * static_cast<index_t>(sizeof(KeyPanel)));
  cost_ = plan.shared<float>(blocks);
  order_ = plan.shared<std::int32_t>(blocks);
}

QueryBlock SoftmaxEngine::Division::block(index_t number, const RowSchedule* rows) const {
  return cut.block(problem, number, rows, first_batch);
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
    tiles.tile[at].cap = static_cast<float>(options_.softcap * log2_e);
    first += count;
  }
  ATTN_ASSERT(free <= scratch.data() + scratch.size());
  return tiles;
}

std::span<float> SoftmaxEngine::split_scratch(const Workspace& workspace, index_t slot) const {
  const auto floats = static_cast<std::size_t>(split_tiles_.count / split_slots_);
  return workspace.shared(split_tiles_).subspan(static_cast<std::size_t>(slot) * floats, floats);
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
  const double* const potential = this->potential(arrays, block);
  if (potential == nullptr || !with_lse) return;
  for (index_t i = 0; i < queries.count; ++i)
    *lse[i] += static_cast<float>(potential[block.position(queries.first + i)] - potential[queries.lowest]);
}

const double* SoftmaxEngine::potential(const EngineArrays& arrays, const QueryBlock& block) const {
  if (!options_.biased) return nullptr;
  return &arrays.potential(block.batch, block.head, arrays.potential.extent(2) - problem_.kv_len);
}

void SoftmaxEngine::attend(const BlockWork& work, index_t slot) const {
  const DenormalsAreZero zero;
  const bool split = work.division.splits > 1;
  Tiles tiles = cut_into_tiles(work.block, split ? split_scratch(work.workspace, slot) : work.workspace.of(work.worker, tiles_));
  if (!BlockPass(*this, work, tiles, false).run()) BlockPass(*this, work, tiles, true).run();
  if (!split) return;
  const std::span<std::uint64_t> seen = flags(work.workspace, slot);
  for (std::size_t t = 0; t < static_cast<std::size_t>(tiles.size); ++t) {
    seen[2 * t] = tiles.tile[t].unset;
    seen[2 * t + 1] = tiles.tile[t].fresh;
  }
}

// In order of the splits, so the same bits however the tasks were timed.
void SoftmaxEngine::merge(const Division& division, const EngineArrays& arrays, const Workspace& workspace, const QueryBlock& block,
                          index_t number) const {
  const DenormalsAreZero zero;
  Tiles sum;
  for (index_t split = 0; split < division.splits; ++split) {
    const index_t slot = number * division.splits + split;
    Tiles part = cut_into_tiles(block, split_scratch(workspace, slot));
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

void SoftmaxEngine::order_tasks(const Division& division, std::span<std::int32_t> order, std::span<float> cost,
                                const RowSchedule* rows, KeySchedule schedule) const {
  for (std::size_t number = 0; number < order.size(); ++number) {
    order[number] = static_cast<std::int32_t>(number);
    cost[number] = 0;
    const QueryBlock block = division.block(static_cast<index_t>(number), rows);
    if (block.count == 0) continue;
    KeyList list(division.problem.kv_len);
    schedule(block, list);
    const auto [lowest, highest] = position_range(block, 0, block.count);
    cost[number] = static_cast<float>(KeyStream(list, lowest, highest, problem_.causal).remaining() * block.count);
  }
  for_each_share(std::ssize(order), [&](index_t begin, index_t end) {
    std::sort(order.begin() + begin, order.begin() + end, [&](std::int32_t a, std::int32_t b) {
      const float cost_a = cost[static_cast<std::size_t>(a)], cost_b = cost[static_cast<std::size_t>(b)];
      return cost_a != cost_b ? cost_a > cost_b : a < b;
    });
  });
}

View<float, 3> SoftmaxEngine::own_lse(const Workspace& workspace) const {
  return {workspace.shared(lse_).data(), {problem_.batch, problem_.heads, problem_.q_len}};
}

void SoftmaxEngine::run(const EngineArrays& given, const Workspace& workspace, const RowSchedule* rows,
                        KeySchedule schedule) const {
  EngineArrays arrays = given;
  if (training_ && arrays.lse.data_handle() == nullptr) arrays.lse = own_lse(workspace);
  ATTN_ASSERT(holds_rows(arrays.q, problem_.dtype) && holds_rows(arrays.k, problem_.kv_dtype));
  ATTN_ASSERT(holds_rows(arrays.v, problem_.kv_dtype) && arrays.out.stride(3) == 1);
  ATTN_ASSERT(is_mask_of(problem_, arrays.mask));
  ATTN_ASSERT(!arrays.resume || arrays.lse.data_handle() != nullptr);
  ATTN_ASSERT(!options_.biased || arrays.potential.extent(2) >= std::max(problem_.kv_len, problem_.q_len));
  if (arrays.lengths.empty()) return run(whole_, arrays, workspace, rows, schedule);
  ATTN_ASSERT(problem_.ragged || problem_.pass == Pass::decode);
  for (index_t batch = 0; batch < problem_.batch; ++batch) {
    const Problem sequence = problem_.sequence(arrays.lengths[static_cast<std::size_t>(batch)]);
    if (sequence.q_len > 0) run(divide(sequence, batch), arrays, workspace, rows, schedule);
    if (rows == nullptr && !arrays.resume) clear_rows(arrays, batch, sequence.q_len);
  }
}

void SoftmaxEngine::run(const Division& division, const EngineArrays& arrays, const Workspace& workspace, const RowSchedule* rows,
                        KeySchedule schedule) const {
  const std::span<std::int32_t> order = workspace.shared(order_).first(static_cast<std::size_t>(division.blocks));
  if (arena_threads() == 1)
    std::iota(order.begin(), order.end(), 0);
  else
    order_tasks(division, order, workspace.shared(cost_), rows, schedule);
  const index_t splits = division.splits, tasks = division.blocks * splits;
  const auto block_of = [&](index_t task) { return division.block(order[static_cast<std::size_t>(task / splits)], rows); };
  std::atomic<bool> wide = false;
  parallel_tasks(tasks, [&](index_t task, int worker) {
    const QueryBlock block = block_of(task);
    if (block.count == 0) return;
    // Workers take tasks in turn, so this is most likely the one that this worker will take up next.
    const index_t next = task + arena_threads();
    const QueryBlock later = next < tasks ? block_of(next) : QueryBlock{.batch = division.first_batch};
    attend({division, arrays, workspace, schedule, block, later, task % splits, worker, wide},
           order[static_cast<std::size_t>(task / splits)] * splits + task % splits);
  });
  if (splits == 1) return;
  parallel_tasks(division.blocks, [&](index_t number, int) {
    const QueryBlock block = division.block(number, rows);
    if (block.count > 0) merge(division, arrays, workspace, block, number);
  });
}

// Rows from `first` on, where a sequence has no queries.
void SoftmaxEngine::clear_rows(const EngineArrays& arrays, index_t batch, index_t first) const {
  for (index_t head = 0; head < problem_.heads; ++head) {
    for (index_t row = first; row < problem_.q_len; ++row) {
      std::fill_n(arrays.out[batch][head].row(row), problem_.value_dim, 0.0f);
      if (arrays.lse.data_handle() != nullptr) arrays.lse(batch, head, row) = -std::numeric_limits<float>::infinity();
    }
  }
}

void SoftmaxEngine::run(const EngineArrays& arrays, const Workspace& workspace, KeySchedule schedule) const {
  ATTN_ASSERT(!whole_.cut.listed());
  run(arrays, workspace, nullptr, schedule);
}

void SoftmaxEngine::run(const EngineArrays& arrays, const Workspace& workspace, RowSchedule rows, KeySchedule schedule) const {
  ATTN_ASSERT(whole_.cut.listed());
  run(arrays, workspace, &rows, schedule);
}

void SoftmaxEngine::backward(const EngineArrays& given, const EngineGradients& gradients, const Workspace& workspace,
                             const RowSchedule* rows, KeySchedule schedule) const {
  ATTN_ASSERT(training_ && given.lengths.empty() && given.layout.plain());
  EngineArrays arrays = given;
  if (arrays.lse.data_handle() == nullptr) arrays.lse = own_lse(workspace);
  backward_.run(problem_, arrays, gradients, workspace, rows, schedule);
}

void SoftmaxEngine::backward(const EngineArrays& arrays, const EngineGradients& gradients, const Workspace& workspace,
                             KeySchedule schedule) const {
  ATTN_ASSERT(!whole_.cut.listed());
  backward(arrays, gradients, workspace, nullptr, schedule);
}

void SoftmaxEngine::backward(const EngineArrays& arrays, const EngineGradients& gradients, const Workspace& workspace,
                             RowSchedule rows, KeySchedule schedule) const {
  ATTN_ASSERT(whole_.cut.listed());
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
