// The softmax engine's backward pass. A task is a kv head, or a share of the blocks of its queries: for each block it goes through
// the block's list of keys panel by panel; tiles of queries make the weights, their gradients and dQ of a panel
// (tile_backward.hpp), and two products over all queries of the block add to the panel's rows of dK and dV. So a row of dK has one
// writer, and its sum one order.
#include <algorithm>
#include <array>
#include <new>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/machine/flush_denormals.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/kernels/softmax/key_stream.hpp"
#include "attn/kernels/softmax/tile_backward.hpp"

namespace attn::kernels {

namespace {

// Queries of a block: the depth of the products for dK and dV, which load and store their result once for it; and what a window
// of keys grows by in them, so short windows take less.
constexpr index_t usual_rows = 96;
constexpr index_t short_window = 256;
// Keys taken at a time: whole register tiles of gemm, whose rows are 6, 8 or 12. More of them make the sum of dQ be loaded and
// stored less often (120 keys take 0.4 to 1 % more time on Zen 4).
constexpr index_t backward_panel_keys = 240;
constexpr index_t float_bytes = sizeof(float);
constexpr index_t row_alignment = 16;  // floats of a cache line

// Memory of a worker, laid out when planned and handed out when run.
struct Scratch {
  float *tiles, *q, *d_out, *weights, *d_scores, *products, *copies;
  index_t floats = 0;

  Scratch(float* at, const TileShape& shape, index_t rows) {
    const auto take = [&](index_t count) {
      float* const from = at == nullptr ? nullptr : at + floats;
      floats += round_up(count, row_alignment);
      return from;
    };
    tiles = take(rows * (2 * shape.head_dim + shape.value_dim + 2));
    q = take(rows * shape.head_dim);
    d_out = take(rows * shape.value_dim);
    weights = take(backward_panel_keys * rows);
    d_scores = take(backward_panel_keys * rows);
    products = take(backward_panel_keys * std::max(shape.head_dim, shape.value_dim));
    copies = take(usual_panel_keys * (shape.head_dim + shape.value_dim));
  }
};

View<float, 2> matrix(float* data, index_t rows, index_t columns) { return {data, {rows, columns}}; }

}  // namespace

SoftmaxBackward::SoftmaxBackward(const Problem& problem, const EngineOptions& options, float factor, WorkspacePlan& plan)
    : shape_{problem.head_dim, problem.value_dim},
      factor_(factor),
      scale_(static_cast<float>(options.scale.value_or(problem.scale()))),
      cut_(problem, options.queries) {
  if (!plan.training()) return;
  const index_t lanes = backward_tile_ops(3).lanes;
  const index_t rows = options.keys_per_query < short_window ? usual_rows / 2 : usual_rows;
  cut_.cut(round_up(rows, lanes), lanes);
  stride_ = round_up(cut_.part_rows(), std::max(lanes, row_alignment));

  // Each split but the first has sums of its own, as large as K and V.
  const index_t kv_heads = problem.batch * problem.kv_heads, threads = plan.threads();
  const index_t blocks = problem.heads / problem.kv_heads * cut_.blocks_of_head();
  if (threads > 1 && kv_heads < 4 * threads) splits_ = std::clamp<index_t>(ceil_div(2 * threads, kv_heads), 1, blocks);
  if (splits_ > 1)
    partial_ = plan.shared<float>((splits_ - 1) * kv_heads * problem.kv_len * (problem.head_dim + problem.value_dim));
  scratch_ = plan.per_worker<float>(Scratch(nullptr, shape_, stride_).floats);
  panel_ = plan.per_worker<std::byte>(static_cast<index_t>(sizeof(KeyPanel)));
}

// A worker at the blocks of one task.
class SoftmaxBackward::Task {
 public:
  // With `add`, d_k and d_v hold sums already.
  Task(const SoftmaxBackward& plan, const Problem& problem, const EngineArrays& arrays, const EngineGradients& gradients,
       const Workspace& workspace, KeySchedule schedule, int worker, const View<float, 2>& d_k, const View<float, 2>& d_v, bool add)
      : plan_(plan),
        problem_(problem),
        shape_(plan.shape_),
        q_all_(arrays.q.f32()),
        k_all_(arrays.k.f32()),
        v_all_(arrays.v.f32()),
        lse_(arrays.lse),
        gradients_(gradients),
        schedule_(schedule),
        scratch_(workspace.of(worker, plan.scratch_).data(), plan.shape_, plan.stride_),
        panel_(*new (workspace.of(worker, plan.panel_).data()) KeyPanel),
        d_k_(d_k),
        d_v_(d_v),
        summed_(add ? problem.kv_len : 0) {}

  void run(const QueryBlock& block) {
    load(block);
    const auto k = k_all_[block.batch][block.kv_head], v = v_all_[block.batch][block.kv_head];
    const auto q = q_all_[block.batch][block.head], out = gradients_.out[block.batch][block.head];
    const auto d_out = gradients_.d_out[block.batch][block.head];
    const KeyRows rows{.k = as_bytes(k.data_handle()),
                       .v = as_bytes(v.data_handle()),
                       .k_stride = float_bytes * k.stride(0),
                       .v_stride = float_bytes * v.stride(0),
                       .k_bytes = float_bytes * shape_.head_dim,
                       .v_bytes = float_bytes * shape_.value_dim,
                       .copy_k = true,
                       .copy_v = true};
    KeyList list(problem_.kv_len);
    schedule_(block, list);
    const auto [lowest, highest] = position_range(block, 0, block.count);
    KeyStream stream(list, lowest, highest, problem_.causal, backward_panel_keys);
    while (stream.next(rows, panel_, reinterpret_cast<std::byte*>(scratch_.copies))) {
      const auto [first, end] = attend();
      if (first == end) continue;
      const index_t keys = consecutive(first, end);
      const bool add = keys == 0 || hold_sums(key(first * key_step), keys);
      if (keys == 0) finish();
      add_products(scratch_.d_scores, q_, first, end, keys, d_k_, {.add = add, .fetch = {next_rows(q, block)}});
      add_products(scratch_.weights, d_out_, first, end, keys, d_v_,
                   {.add = add, .fetch = {next_rows(d_out, block), next_rows(out, block)}});
    }
    store(block);
  }

  // After the last block: zeros for the keys that no query sees.
  void finish() { clear_until(problem_.kv_len); }

 private:
  struct OwnTile {
    BackwardTile tile;
    TileQueries queries;
    const BackwardTileOps* ops;
    index_t column;  // of its first lane in a row of weights
  };

  // The right operand of a product over the block's queries.
  struct Operand {
    Rows rows;
    index_t count, width;
  };

  void load(const QueryBlock& block) {
    const auto q = q_all_[block.batch][block.head], out = gradients_.out[block.batch][block.head];
    const auto d_out = gradients_.d_out[block.batch][block.head];
    size_ = 0;
    float* free = scratch_.tiles;
    const auto take = [&free](index_t count) { return std::exchange(free, free + count); };
    const index_t vector = backward_tile_ops(1).lanes;
    index_t column = 0;
    for (index_t first = 0; first < block.count;) {
      const index_t left = block.count - first;
      OwnTile& own = tiles_[static_cast<std::size_t>(size_++)];
      own.ops = &backward_tile_ops(tile_vectors(left, vector));
      const index_t lanes = own.ops->lanes, count = std::min(left, lanes);
      const auto [lowest, highest] = position_range(block, first, count);
      own.queries = {&block, first, count, lowest, highest};
      own.column = column;
      // The long arrays first: each is a multiple of a vector.
      own.tile.qt = take(lanes * shape_.head_dim);
      own.tile.dot = take(lanes * shape_.value_dim);
      own.tile.dqt = take(lanes * shape_.head_dim);
      own.tile.minus_lse = take(lanes);
      own.tile.minus_delta = take(lanes);

      const float *q_rows[max_lanes], *out_rows[max_lanes], *d_out_rows[max_lanes], *lse[max_lanes];
      for (index_t i = 0; i < count; ++i) {
        const index_t row = block.row(first + i);
        q_rows[i] = q.row(row);
        out_rows[i] = out.row(row);
        d_out_rows[i] = d_out.row(row);
        lse[i] = &lse_(block.batch, block.head, row);
        if (block.rows == nullptr) continue;
        std::copy_n(q_rows[i], shape_.head_dim, scratch_.q + (first + i) * shape_.head_dim);
        std::copy_n(d_out_rows[i], shape_.value_dim, scratch_.d_out + (first + i) * shape_.value_dim);
      }
      own.ops->load(own.tile, shape_, {q_rows, out_rows, d_out_rows, lse, count}, plan_.factor_, plan_.scale_);
      first += count;
      column += lanes;
    }
    ATTN_ASSERT(column <= plan_.stride_ && size_ <= most_tiles);
    const bool listed = block.rows != nullptr;
    const auto operand = [&](const View<const float, 2>& x, const float* copies) {
      const Rows rows = listed ? Rows{copies, x.extent(1)} : Rows{x.row(block.first), x.stride(0) * block.step};
      return Operand{rows, block.count, x.extent(1)};
    };
    q_ = operand(q, scratch_.q);
    d_out_ = operand(d_out, scratch_.d_out);
  }

  // Weights and their gradients of the steps first..end-1 of the panel, outside which no query sees a key.
  std::pair<index_t, index_t> attend() {
    index_t first = panel_steps, end = 0;
    for (index_t t = 0; t < size_; ++t) {
      const auto reach = steps_in_reach(panel_, tiles_[static_cast<std::size_t>(t)].queries);
      if (reach.first == reach.second) continue;
      first = std::min(first, reach.first);
      end = std::max(end, reach.second);
    }
    if (first >= end) return {0, 0};
    for (index_t t = 0; t < size_; ++t) attend(tiles_[static_cast<std::size_t>(t)], first, end);
    return {first, end};
  }

  void attend(OwnTile& own, index_t first, index_t end) {
    const index_t stride = plan_.stride_;
    std::uint64_t lanes[backward_panel_keys];
    Sight seen[backward_panel_keys / key_step];
    for (index_t s = first; s < end; ++s) seen[s] = sight(panel_, s, own.queries, problem_.causal, lanes + s * key_step);
    for (index_t s = first; s < end;) {
      float* const weights = scratch_.weights + s * key_step * stride + own.column;
      float* const d_scores = scratch_.d_scores + s * key_step * stride + own.column;
      const index_t from = s;
      if (seen[s] == Sight::none) {
        while (s < end && seen[s] == Sight::none) ++s;
        for (index_t j = 0; j < (s - from) * key_step; ++j) {
          std::fill_n(weights + j * stride, own.ops->lanes, 0.0f);
          std::fill_n(d_scores + j * stride, own.ops->lanes, 0.0f);
        }
        continue;
      }
      std::uint64_t cut = 0;
      for (; s < end && seen[s] != Sight::none; ++s) cut |= std::uint64_t{seen[s] == Sight::some} << (s - from);
      const KeyBatch batch{.k = panel_.k.data() + from * key_step,
                           .v = panel_.v.data() + from * key_step,
                           .lanes = lanes + from * key_step,
                           .cut = cut,
                           .guard = false,
                           .count = (s - from) * key_step,
                           .fetch = {nullptr, nullptr}};
      own.ops->attend(own.tile, shape_, batch, weights, d_scores, stride);
    }
  }

  // Whether these rows of d_k and d_v hold a sum; if not, the next product is their first. The rows before them do from here on.
  bool hold_sums(index_t first, index_t count) {
    if (first < summed_) {
      clear_until(first + count);
      return true;
    }
    clear_until(first);
    summed_ = first + count;
    return false;
  }
  void clear_until(index_t end) {
    for (; summed_ < end; ++summed_) {
      std::fill_n(d_k_.row(summed_), shape_.head_dim, 0.0f);
      std::fill_n(d_v_.row(summed_), shape_.value_dim, 0.0f);
    }
  }

  // Rows of the queries after this block's.
  Fetch next_rows(const View<const float, 2>& rows, const QueryBlock& block) const {
    const index_t next = block.row(block.count - 1) + block.step;
    const bool exist = block.rows == nullptr && next + block.step * (block.count - 1) < problem_.q_len;
    return exist ? Fetch{rows.row(next), rows.stride(0) * block.step, block.count, rows.extent(1)} : Fetch{};
  }

  // to[key] += sum over the block's queries of factors[key][query] * rows[query], for the keys of the steps first..end-1, of which
  // `keys` follow each other if that is not 0.
  void add_products(const float* factors, const Operand& operand, index_t first, index_t end, index_t keys,
                    const View<float, 2>& to, const GemmOptions& options) {
    const auto& [rows, queries, width] = operand;
    const index_t from = first * key_step, count = (end - first) * key_step;
    const Left left{factors + from * plan_.stride_, plan_.stride_};
    if (keys > 0) return gemm(keys, width, queries, left, rows, {to.row(key(from)), to.stride(0)}, options);
    gemm(count, width, queries, left, rows, {scratch_.products, width});
    for (index_t s = first; s < end; ++s) {
      const unsigned valid = panel_.steps[static_cast<std::size_t>(s)].valid;
      for (index_t r = 0; r < key_step; ++r) {
        if ((valid >> r & 1) == 0) continue;
        const index_t j = s * key_step + r;
        add(1, width, {scratch_.products + (j - from) * width, width}, {to.row(key(j)), width});
      }
    }
  }

  index_t key(index_t j) const { return panel_.key[static_cast<std::size_t>(j)]; }

  // How many keys the steps hold, if these follow each other and padding, if any, comes last; 0 otherwise.
  index_t consecutive(index_t first, index_t end) const {
    index_t count = 0;
    for (index_t s = first; s < end; ++s) {
      const KeyPanel::Step& step = panel_.steps[static_cast<std::size_t>(s)];
      const index_t keys = step.highest - step.lowest + 1;
      if (count % key_step != 0 || keys > key_step || step.valid != (1u << keys) - 1) return 0;
      for (index_t r = 0; r < keys; ++r) {
        if (key(s * key_step + r) != key(first * key_step) + count + r) return 0;
      }
      count += keys;
    }
    return count;
  }

  void store(const QueryBlock& block) {
    const auto d_q = gradients_.d_q[block.batch][block.head];
    for (index_t t = 0; t < size_; ++t) {
      const OwnTile& own = tiles_[static_cast<std::size_t>(t)];
      float* rows[max_lanes];
      for (index_t i = 0; i < own.queries.count; ++i) rows[i] = d_q.row(block.row(own.queries.first + i));
      own.ops->store(own.tile, shape_, rows, own.queries.count, gradients_.add);
    }
  }

  static constexpr index_t most_tiles = usual_rows / 3 + 2;  // three lanes a tile without vectors

  const SoftmaxBackward& plan_;
  const Problem& problem_;
  const TileShape shape_;
  const View<const float, 4> q_all_, k_all_, v_all_;
  const View<float, 3> lse_;
  const EngineGradients& gradients_;
  KeySchedule schedule_;
  Scratch scratch_;
  KeyPanel& panel_;
  const View<float, 2> d_k_, d_v_;
  index_t summed_;               // their rows before this one hold a sum
  Operand q_ = {}, d_out_ = {};  // of the block
  index_t size_ = 0;
  std::array<OwnTile, most_tiles> tiles_;
};

void SoftmaxBackward::run(const Problem& p, const EngineArrays& arrays, const EngineGradients& gradients,
                          const Workspace& workspace, const RowSchedule* rows, KeySchedule schedule) const {
  const index_t kv_heads = p.batch * p.kv_heads, group = p.heads / p.kv_heads, in_head = cut_.blocks_of_head();
  const index_t k_floats = p.kv_len * p.head_dim, v_floats = p.kv_len * p.value_dim;
  ATTN_ASSERT(gradients.d_q.stride(3) == 1 && gradients.d_k.stride(3) == 1 && gradients.d_v.stride(3) == 1);
  ATTN_ASSERT(gradients.out.stride(3) == 1 && gradients.d_out.stride(3) == 1);

  const auto own_sums = [&](index_t kv_head, index_t split) {
    if (split == 0) {
      return std::pair{gradients.d_k[kv_head / p.kv_heads][kv_head % p.kv_heads],
                       gradients.d_v[kv_head / p.kv_heads][kv_head % p.kv_heads]};
    }
    float* const sums = workspace.shared(partial_).data() + ((split - 1) * kv_heads + kv_head) * (k_floats + v_floats);
    return std::pair{matrix(sums, p.kv_len, p.head_dim), matrix(sums + k_floats, p.kv_len, p.value_dim)};
  };

  parallel_tasks(kv_heads * splits_, [&](index_t task, int worker) {
    const DenormalsAreZero zero;
    const index_t kv_head = task / splits_, split = task % splits_;
    const auto [d_k, d_v] = own_sums(kv_head, split);
    Task own(*this, p, arrays, gradients, workspace, schedule, worker, d_k, d_v, split == 0 && gradients.add);
    const index_t first = (kv_head / p.kv_heads * p.heads + kv_head % p.kv_heads * group) * in_head;
    for (index_t number = split; number < group * in_head; number += splits_) {
      const QueryBlock block = cut_.block(p, first + number, rows);
      if (block.count > 0) own.run(block);
    }
    own.finish();
  });
  if (splits_ == 1) return;

  constexpr index_t keys = 256;  // that a task sums up
  const index_t chunks = ceil_div(p.kv_len, keys);
  parallel_tasks(kv_heads * chunks, [&](index_t task, int) {
    const index_t kv_head = task / chunks, first = task % chunks * keys, count = std::min(keys, p.kv_len - first);
    const auto [d_k, d_v] = own_sums(kv_head, 0);
    for (index_t split = 1; split < splits_; ++split) {
      const auto [k_part, v_part] = own_sums(kv_head, split);
      add(count, p.head_dim, {k_part.row(first), p.head_dim}, {d_k.row(first), d_k.stride(0)});
      add(count, p.value_dim, {v_part.row(first), p.value_dim}, {d_v.row(first), d_v.stride(0)});
    }
  });
}

}  // namespace attn::kernels
