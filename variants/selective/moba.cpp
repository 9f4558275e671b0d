#include <algorithm>
#include <optional>

#include "attn/kernels/choose/by_block.hpp"
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
    own_.emplace(p, kernels::EngineOptions{.queries = kernels::QueryBlocks::aligned(o_.block)}, workspace);
    lse_ = workspace.shared<float>(p.batch * p.heads * p.q_len);
    if (past_ == 0) return;
    by_block_.emplace(p.batch * p.heads, p.q_len, ceil_div(p.kv_len, o_.block), past_, workspace);
    others_.emplace(p, kernels::EngineOptions{.queries = by_block_->queries()}, workspace);
  }

  auto own_keys() const {
    return [this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      keys.range(floor_div(queries.position(0), o_.block) * o_.block, o_.block);
    };
  }
  void choose(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const { choice_.run(a.q, a.k, workspace); }
  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    choose(a, parameters, workspace);
    if (few_) return run_few(a, workspace);
    own_->run({a.q, a.k, a.v, a.out, lse(workspace)}, workspace, own_keys());
    if (past_ == 0) return;
    by_block_->group([&](index_t head) { return choice_.chosen(workspace, head / p_.heads, head % p_.heads); }, workspace);
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

  // Calls use(rows, keys) for each place in the queries' lists.
  template <class F>
  void each_choice(const Workspace& workspace, bool whole_tiles, F use) const {
    for (index_t r = 0; r < past_; ++r) {
      const auto rows = [&](index_t b, index_t h, index_t piece) {
        return by_block_->rows(workspace, b * p_.heads + h, r, piece, whole_tiles);
      };
      const auto keys = [&](const kernels::QueryBlock& queries, kernels::KeyList& list) {
        list.range(by_block_->block(workspace, queries.batch * p_.heads + queries.head, r, queries.block) * o_.block, o_.block);
      };
      use(kernels::RowSchedule(rows), kernels::KeySchedule(keys));
    }
  }

  Problem p_;
  Options o_;
  index_t past_;  // blocks that a query chooses
  kernels::TopBlocks choice_;
  std::optional<kernels::RowsEngine> few_;
  std::optional<kernels::SoftmaxEngine> own_, others_;
  std::optional<kernels::ByBlock> by_block_;
  Booking<std::int32_t> lists_;
  Booking<float> lse_;
};
ATTN_VARIANT(moba, Moba)

}  // namespace attn
