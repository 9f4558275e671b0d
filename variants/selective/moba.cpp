#include <algorithm>
#include <optional>

#include "attn/kernels/choose/grouping.hpp"
#include "attn/kernels/choose/top_blocks.hpp"
#include "attn/kernels/rows/rows_engine.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/backward_cost.hpp"
#include "attn/variant/chosen_keys.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// moba: mixture of block attention: each query attends to its own block and to the past blocks whose mean key it likes best.
//   out_i = softmax attention over {j <= i in block floor(i / block)} u {j in the keep - 1 past blocks u of the largest q_i.mean K_u}
//   Lu et al. 2025, arXiv:2502.13189; the own block counts among `keep`, as in MoonshotAI/MoBA
//   useful flops 2 pairs (D + Dv), pairs ~ N (keep - 1/2) block; scoring N^2 D / block is not counted
//   workspace the chosen blocks of each query, lists of queries by block, and means
//   exact where keep is no less than the number of blocks; keep=1 is blockwise attention
// Queries that chose the same block meet it together: one run for the own blocks and keep - 1 for the others, each of which goes on from what
// the runs before found. The choice is a constant to gradients.
struct Moba {
  struct Options {
    index_t block = 512, keep = 3;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("block", &Options::block, 1, unlimited, "length of a block; the last one may be shorter")
        .integer("keep", &Options::keep, 1, 4096, "blocks that a query sees, its own included")
        .budget();
  }

  static VariantInfo info() {
    return {.title = "Mixture of block attention",
            .formula = "softmax over the own block up to i and the keep - 1 past blocks u of the largest q_i.mean K_u",
            .paper = "Lu et al. 2025, arXiv:2502.13189",
            .cost_in_n = "N keep block D + N^2 / block D",
            .fine_print =
                "Equal scores go to the block that comes first; a score that is no number is never chosen. In a decode the means "
                "are made "
                "again of all keys at each step.",
            .exactness = Exactness::pattern,
            .causality = Causality::always,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const Options own = within(p, o);
    Cost cost = softmax_cost(p, count_pairs(p, [&](index_t i) {
                               return i < 0 ? 0 : i % own.block + 1 + own.block * std::min(own.keep - 1, i / own.block);
                             }));
    // Every key is in a mean; of the values, those of the blocks that were chosen at most.
    const index_t seen = std::min(p.kv_len, p.q_len * (p.heads / p.kv_heads) * own.keep * own.block);
    cost.bytes -= static_cast<double>(p.batch * p.kv_heads * (p.kv_len - seen) * bytes_of(p.kv_dtype, p.value_dim));
    return cost;
  }
  static Cost backward_cost(const Problem& p, const Options& o) { return chosen_keys_backward_cost(p, cost(p, o)); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const Options own = within(p, o);
    const index_t past = own.keep - 1, rows = std::ssize(in.position);
    const std::vector<std::int32_t> chosen =
        kernels::top_blocks(p, own.block, past, cast<float>(in.q).data(), in.position, cast<float>(in.k).data());
    return masked_attention(p, in, chosen_pairs(p, in, [&](index_t b, index_t h, index_t row, index_t j) {
                              const index_t i = in.position[static_cast<std::size_t>(row)], u = j / own.block;
                              const auto list = chosen.begin() + ((b * p.heads + h) * rows + row) * past;
                              return u == floor_div(i, own.block) || std::find(list, list + past, u) != list + past;
                            }));
  }

  Moba(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), o_(within(p, o)), past_(o_.keep - 1), choice_(p, o_.block, past_, workspace) {
    if (few_rows(p)) {
      few_.emplace(p, rows_options(), workspace);
      lists_ = workspace.shared<std::int32_t>(p.batch * p.heads * p.q_len * (o_.keep + 1));
      return;
    }
    blocks_ = ceil_div(p.kv_len, o_.block);
    pieces_ = past_ > 0 ? blocks_ + p.q_len / piece_rows : 0;
    own_.emplace(p, kernels::EngineOptions{.queries = kernels::QueryBlocks::aligned(o_.block)}, workspace);
    lse_ = workspace.shared<float>(p.batch * p.heads * p.q_len);
    if (past_ == 0) return;
    others_.emplace(p, kernels::EngineOptions{.queries = kernels::QueryBlocks::listed(pieces_, piece_rows)}, workspace);
    list_size_ = p.q_len + blocks_ * (lanes_ - 1);
    rows_ = workspace.shared<std::int32_t>(p.batch * p.heads * past_ * list_size_);
    piece_ = workspace.shared<Piece>(p.batch * p.heads * past_ * pieces_);
    group_ = workspace.per_worker<std::int32_t>(2 * p.q_len + blocks_ + 2);
  }

  auto own_keys() const {
    return [this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      keys.range(floor_div(queries.position(0), o_.block) * o_.block, o_.block);
    };
  }
  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    choice_.run(a.q, a.k, workspace);
    if (few_) return run_few(a, workspace);
    own_->run({a.q, a.k, a.v, a.out, lse(workspace)}, workspace, own_keys());
    parallel_tasks(p_.batch * p_.heads * past_, [&](index_t task, int worker) { group_queries(workspace, task, worker); });
    each_choice(workspace, true, [&](kernels::RowSchedule rows, kernels::KeySchedule keys) {
      others_->run({a.q, a.k, a.v, a.out, lse(workspace), true}, workspace, rows, keys);
    });
  }
  // What was chosen is held fixed.
  void backward(const FloatArrays& a, const ParameterSet<float>&, const FloatGradients& g, Workspace& workspace) const {
    kernels::EngineGradients gradients{a.out, g.d_out, g.d_q, g.d_k, g.d_v};
    own_->backward({a.q, a.k, a.v, {}, lse(workspace)}, gradients, workspace, own_keys());
    gradients.add = true;
    each_choice(workspace, false, [&](kernels::RowSchedule rows, kernels::KeySchedule keys) {
      others_->backward({a.q, a.k, a.v, {}, lse(workspace)}, gradients, workspace, rows, keys);
    });
  }

 private:
  struct Piece {
    std::int32_t first, count, block;  // queries rows[first] .. rows[first + count - 1], and the last one again up to whole tiles
  };
  static constexpr index_t piece_rows = 192;  // that meet a block at once, at most: four wide tiles

  // Longer blocks, and more of them, than there are say the same.
  static Options within(const Problem& p, const Options& o) {
    const index_t block = std::min(o.block, p.kv_len);
    return {.block = block, .keep = std::min(o.keep, ceil_div(p.kv_len, block))};
  }
  // Of a step, or a chunk as short: each has a list of its own, for the rows engine.
  static bool few_rows(const Problem& p) {
    return p.pass != Pass::forward_backward && (p.pass == Pass::decode || !p.self_attention()) &&
           p.q_len * (p.heads / p.kv_heads) <= 64;
  }
  kernels::RowsOptions rows_options() const {
    return {.keys = std::min(p_.kv_len, o_.keep * o_.block), .spans = o_.keep + 1, .apart = true, .heads_apart = true};
  }

  View<float, 3> lse(const Workspace& workspace) const { return {workspace.shared(lse_).data(), {p_.batch, p_.heads, p_.q_len}}; }

  void run_few(const FloatArrays& a, const Workspace& workspace) const {
    std::int32_t* const lists = workspace.shared(lists_).data();
    const auto list_of = [&](index_t b, index_t h, index_t row) {
      return lists + ((b * p_.heads + h) * p_.q_len + row) * (o_.keep + 1);
    };
    for (index_t row = 0; row < p_.batch * p_.heads * p_.q_len; ++row) {
      const index_t head = row / p_.q_len, i = row % p_.q_len, own = floor_div(p_.query_position(i), o_.block);
      const std::int32_t* const chosen = choice_.chosen(workspace, head / p_.heads, head % p_.heads) + i * past_;
      std::int32_t* const list = list_of(head / p_.heads, head % p_.heads, i);
      std::int32_t* end = std::copy_if(chosen, chosen + past_, list + 1, [](std::int32_t u) { return u >= 0; });
      if (own >= 0) *end++ = static_cast<std::int32_t>(own);
      list[0] = static_cast<std::int32_t>(end - list - 1);
    }
    few_->run({.q = a.q, .k = a.k, .v = a.v, .out = a.out}, {}, workspace,
              [&](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
                const std::int32_t* const list = list_of(queries.batch, queries.head, queries.row(0));
                keys.listed_blocks(list + 1, list[0], o_.block);
              });
  }

  // The queries of a head by the block that stands r-th in their lists, in pieces.
  void group_queries(const Workspace& workspace, index_t task, int worker) const {
    const index_t head = task / past_, r = task % past_, none = blocks_;
    const std::span<std::int32_t> own = workspace.of(worker, group_);
    const auto size = static_cast<std::size_t>(p_.q_len);
    const std::span<std::int32_t> group = own.first(size), order = own.subspan(size, size);
    const std::span<std::int32_t> begin = own.subspan(2 * size, static_cast<std::size_t>(blocks_) + 2);
    const std::int32_t* const chosen = choice_.chosen(workspace, head / p_.heads, head % p_.heads);
    for (index_t i = 0; i < p_.q_len; ++i) {
      const std::int32_t u = chosen[i * past_ + r];
      group[static_cast<std::size_t>(i)] = u >= 0 ? u : static_cast<std::int32_t>(none);
    }
    kernels::sort_by_group(group, order, begin);
    std::int32_t *const rows = workspace.shared(rows_).data() + task * list_size_, *end = rows;
    Piece* piece = workspace.shared(piece_).data() + task * pieces_;
    Piece* const last_piece = piece + pieces_;
    for (std::int32_t u = 0; u < blocks_; ++u) {
      const std::int32_t last = begin[static_cast<std::size_t>(u) + 1];
      for (std::int32_t i = begin[static_cast<std::size_t>(u)]; i < last; i += piece_rows) {
        const std::int32_t count = std::min(static_cast<std::int32_t>(piece_rows), last - i);
        *piece++ = {static_cast<std::int32_t>(end - rows), count, u};
        end = std::copy_n(order.begin() + i, count, end);
        end = std::fill_n(end, round_up(count, lanes_) - count, end[-1]);
      }
    }
    while (piece < last_piece) *piece++ = {0, 0, 0};
  }

  // Calls use(rows, keys) for each place in the queries' lists. With whole tiles a query's bits do not depend on how many others, later ones
  // too, chose as it did: a query that stands there twice is computed twice and written twice, the same.
  template <class F>
  void each_choice(const Workspace& workspace, bool whole_tiles, F use) const {
    for (index_t r = 0; r < past_; ++r) {
      const auto task = [&](index_t b, index_t h) { return (b * p_.heads + h) * past_ + r; };
      const auto piece = [&](index_t b, index_t h, index_t i) -> const Piece& {
        return workspace.shared(piece_)[static_cast<std::size_t>(task(b, h) * pieces_ + i)];
      };
      const auto rows = [&](index_t b, index_t h, index_t i) {
        const Piece& own = piece(b, h, i);
        return std::span<const std::int32_t>(workspace.shared(rows_).data() + task(b, h) * list_size_ + own.first,
                                             static_cast<std::size_t>(whole_tiles ? round_up(own.count, lanes_) : own.count));
      };
      const auto keys = [&](const kernels::QueryBlock& queries, kernels::KeyList& list) {
        list.range(piece(queries.batch, queries.head, queries.block).block * o_.block, o_.block);
      };
      use(kernels::RowSchedule(rows), kernels::KeySchedule(keys));
    }
  }

  Problem p_;
  Options o_;
  index_t past_;  // blocks that a query chooses
  kernels::TopBlocks choice_;
  index_t lanes_ = kernels::tile_ops(3).lanes;
  index_t blocks_ = 0, pieces_ = 0, list_size_ = 0;
  std::optional<kernels::RowsEngine> few_;
  std::optional<kernels::SoftmaxEngine> own_, others_;
  Booking<std::int32_t> lists_, rows_, group_;
  Booking<Piece> piece_;
  Booking<float> lse_;
};
ATTN_VARIANT(moba, Moba)

}  // namespace attn
