#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// blockwise: the sequence is cut into blocks; a query sees its own block, `before` blocks before it and `after` after it.
//   out_i = softmax attention over {j : c(i) - before <= c(j) <= c(i) + after},  c(i) = floor(i / block);  j <= i when causal
//   Liu et al. 2018, arXiv:1801.10198, section 4.2.3 (blocks of their own); Child et al. 2019, arXiv:1904.10509 (blocks as tiles)
//   useful flops 2 pairs (D + Dv), pairs ~ N block (1 + before + after); no workspace that grows with N; no wrap-around
struct Blockwise {
  using Engine = kernels::Attention;
  static constexpr bool takes_mask = true;
  struct Options {
    index_t block = 128, before = 1, after = 1;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("block", &Options::block, 1, unlimited, "length of a block; the last one may be shorter")
        .budget()
        .integer("before", &Options::before, 0, unlimited, "blocks seen before the query's own")
        .integer("after", &Options::after, 0, unlimited, "blocks seen after it");
  }

  static VariantInfo info() {
    return {.title = "Blocks and their neighbours",
            .formula = "softmax over the keys of blocks c(i)-before .. c(i)+after, c(i) = floor(i/block)",
            .paper = "Liu et al. 2018, arXiv:1801.10198, section 4.2.3",
            .cost_in_n = "N block (1+before+after) D",
            .exactness = Exactness::pattern,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const Options own = within(p, o);
    const auto first = [&](index_t i) { return first_key(floor_div(i, own.block), own); };
    const auto last = [&](index_t i) { return last_key(floor_div(i, own.block), own); };
    return softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, first(i), last(i)); }),
                        [&](index_t i, SeenKeys& seen) { seen.add(i, first(i), last(i)); });
  }

  static StateSpec state(const Problem& p, const Options& o) {
    const Options own = within(p, o);
    return kept_tokens(p, own.block * (own.before + 1 + (p.causal ? 0 : own.after)));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    return softmax_attention(p, in, [&](index_t i, index_t j) {
      const index_t distance = j / o.block - floor_div(i, o.block);
      return -o.before <= distance && distance <= o.after;
    });
  }

  Blockwise(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : o_(within(p, o)), engine_(p, {.queries = kernels::QueryBlocks::aligned(o_.block)}, workspace) {}

  auto keys() const {
    return [this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      const index_t c = floor_div(queries.position(0), o_.block);
      keys.range(first_key(c, o_), last_key(c, o_) - first_key(c, o_) + 1);
    };
  }
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const { engine_.run(a, workspace, keys()); }
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    engine_.backward(a, {a, g}, workspace, keys());
  }

 private:
  // Larger ones say the same.
  static Options within(const Problem& p, const Options& o) {
    const index_t longest = std::max(p.q_len, p.kv_len);
    return {std::min(o.block, longest), std::min(o.before, longest), std::min(o.after, longest)};
  }
  static index_t first_key(index_t c, const Options& o) { return (c - o.before) * o.block; }
  static index_t last_key(index_t c, const Options& o) { return (c + o.after + 1) * o.block - 1; }

  Options o_;
  Engine engine_;
};
ATTN_VARIANT(blockwise, Blockwise)

}  // namespace attn
