#include "attn/kernels/choose/vertical_slash.hpp"

#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/backward_cost.hpp"
#include "attn/variant/chosen_keys.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// vertical_slash: queries attend to the keys and to the distances that the last queries attend to most.
//   out_i = softmax attention over {j <= i in V} u {j <= i : b(i) - b(j) in S or S + 1},  b(x) = floor(x / block)
//   of the softmax weights of the `last` queries: V the `vertical` keys of the largest sums, among them the `first` ones; S the `slash` blocks of
//   distances of the largest sums, among them the `local` nearest
//   MInference 2024, microsoft/MInference: there diagonals are chosen one by one, and widened to blocks likewise
//   useful flops 2 pairs (D + Dv) of the keys that are sure to be seen, `first` and `local`: what else is chosen lies where it lies; scoring
//   2 last N D is not counted; workspace N (D + last) a worker and the lists of blocks and keys
//   exact where `vertical` is no less than the number of keys
// The choice is a constant to gradients.
struct VerticalSlash {
  struct Options {
    index_t block = 64, last = 64, vertical = 256, slash = 8, first = 30, local = 2;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("block", &Options::block, 1, unlimited, "queries, keys and distances that are taken together")
        .integer("last", &Options::last, 1, 4096, "queries at the end whose weights are summed")
        .integer("vertical", &Options::vertical, 0, unlimited, "keys that all queries see")
        .budget()
        .integer("slash", &Options::slash, 1, unlimited, "blocks of distances that are seen")
        .budget()
        .integer("first", &Options::first, 0, unlimited, "first keys that are always some of these")
        .integer("local", &Options::local, 1, unlimited, "nearest blocks of distances that always are");
  }

  static VariantInfo info() {
    return {
        .title = "Columns and diagonals",
        .formula = "softmax over the keys and the blocks of distances to which the last queries attend most",
        .paper = "MInference 2024, microsoft/MInference",
        .cost_in_n = "N (vertical + 2 slash block) D + last N D",
        .fine_print =
            "Declared work is that of the keys that are sure to be seen. Equal sums go to the key, or distance, that comes first.",
        .exactness = Exactness::pattern,
        .causality = Causality::always,
        .cross = false,
        .grouped_heads = true,
        .row_wise = false,
        .membership_sees_future = true,
        .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const kernels::SlashRules own = rules(p, o);
    return softmax_cost(p, count_pairs(p, [&](index_t i) {
                          const index_t begin = std::max<index_t>(0, i / own.block - own.local) * own.block;
                          return i + 1 - begin + std::min(own.first, begin);
                        }));
  }
  static Cost backward_cost(const Problem& p, const Options& o) { return chosen_keys_backward_cost(p, cost(p, o)); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const kernels::SlashTable table(p, rules(p, o), cast<float>(in.q).data(), cast<float>(in.k).data());
    return masked_attention(p, in, chosen_pairs(p, in, [&](index_t b, index_t h, index_t i, index_t j) {
                              return j <= i && table.sees(b * p.heads + h, i, j);
                            }));
  }

  VerticalSlash(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : block_(rules(p, o).block),
        choice_(p, rules(p, o), workspace),
        engine_(p, {.queries = kernels::QueryBlocks::aligned(block_)}, workspace) {}

  auto keys(const Workspace& workspace) const {
    return [&, this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      const index_t u = queries.position(0) / block_;
      const auto blocks = choice_.blocks(workspace, queries.batch, queries.head, u);
      const auto others = choice_.keys(workspace, queries.batch, queries.head, u);
      keys.listed_blocks(blocks.data(), std::ssize(blocks), block_);
      if (!others.empty()) keys.listed(others.data(), std::ssize(others));
    };
  }
  void choose(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const { choice_.run(a.q, a.k, workspace); }
  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    choose(a, parameters, workspace);
    engine_.run({a.q, a.k, a.v, a.out}, workspace, keys(workspace));
  }
  // What was chosen is held fixed.
  void backward(const FloatArrays& a, const ParameterSet<float>&, const FloatGradients& g, Workspace& workspace) const {
    engine_.backward({a.q, a.k, a.v}, {a.out, g.d_out, g.d_q, g.d_k, g.d_v}, workspace, keys(workspace));
  }

 private:
  static kernels::SlashRules rules(const Problem& p, const Options& o) {
    const index_t most = p.kv_len + 1;
    return {std::min(o.block, p.kv_len), o.last, std::min(o.vertical, most), std::min(o.slash, most), std::min(o.first, most),
            std::min(o.local, most)};
  }

  index_t block_;
  kernels::VerticalSlash choice_;
  kernels::SoftmaxEngine engine_;
};
ATTN_VARIANT(vertical_slash, VerticalSlash)

}  // namespace attn
