#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// fixed: the query's own block, and the last `summary` keys of every other block.
//   out_i = softmax attention over {c(j) = c(i)} u {j mod block >= block - summary},  c(i) = floor(i / block);  j <= i when causal,
//   which is the paper's form. The paper's interval for j mod block has no position 0: neither has this page
//   Child et al. 2019, arXiv:1904.10509, section 4.2 ("fixed attention")
//   useful flops 2 pairs (D + Dv), causal pairs ~ N block / 2 + N^2 summary / (2 block); no workspace that grows with N
struct Fixed {
  using Engine = kernels::Attention;
  static constexpr bool takes_mask = true;
  struct Options {
    index_t block = 128, summary = 32;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("block", &Options::block, 1, unlimited, "length of a block; the last one may be shorter")
        .integer("summary", &Options::summary, 0, unlimited, "positions at the end of each block that every block sees");
  }

  static VariantInfo info() {
    return {.title = "Sparse Transformer, fixed",
            .formula = "softmax over the own block and over j mod block >= block - summary",
            .paper = "Child et al. 2019, arXiv:1904.10509, section 4.2",
            .cost_in_n = "N block D + N^2 summary/block D",
            .exactness = Exactness::pattern,
            .grouped_heads = true,
            .time_exponent = 2};
  }

  static Status supports(const Problem&, const Options& o) {
    if (o.summary > o.block) return refuse("needs summary no larger than block");
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const index_t blocks = ceil_div(p.kv_len, o.block);
    const index_t whole_blocks = p.kv_len / o.block;  // a shorter last block ends before its summary, or amid it
    const index_t ragged = std::max<index_t>(0, p.kv_len % o.block - (o.block - o.summary));
    return softmax_cost(p,
                        count_pairs(p,
                                    [&](index_t i) {
                                      const index_t c = floor_div(i, o.block);
                                      const index_t own = visible_keys(p, i, c * o.block, (c + 1) * o.block - 1);
                                      const index_t before = std::clamp<index_t>(c, 0, blocks) * o.summary;
                                      const index_t rest = whole_blocks - std::max<index_t>(0, c + 1);
                                      const index_t after = p.causal || c >= whole_blocks ? 0 : rest * o.summary + ragged;
                                      return own + before + after;
                                    }),
                        [&](index_t i, SeenKeys& seen) {
                          const index_t c = floor_div(i, o.block);
                          seen.add(i, c * o.block, (c + 1) * o.block - 1);
                          for (index_t b = 0; b < blocks; ++b) seen.add(i, (b + 1) * o.block - o.summary, (b + 1) * o.block - 1);
                        });
  }

  // A block and the summaries of those before.
  static StateSpec state(const Problem& p, const Options& o) {
    return p.causal ? kept_summaries(p, std::min(o.block, p.kv_len), o.block, o.summary) : kept_tokens(p, p.kv_len);
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    return softmax_attention(
        p, in, [&](index_t i, index_t j) { return floor_div(i, o.block) == j / o.block || j % o.block >= o.block - o.summary; });
  }

  Fixed(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : o_(o), engine_(p, {.queries = kernels::QueryBlocks::aligned(o.block)}, workspace) {}

  auto keys() const {
    return [this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      const index_t own = floor_div(queries.position(0), o_.block), blocks = ceil_div(keys.kv_len(), o_.block);
      keys.range(own * o_.block, o_.block);
      keys.blocks(o_.block - o_.summary, o_.block, std::max<index_t>(0, own), o_.summary);
      keys.blocks((own + 2) * o_.block - o_.summary, o_.block, blocks - own - 1, o_.summary);
    };
  }
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const { engine_.run(a, workspace, keys()); }
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    engine_.backward(a, {a, g}, workspace, keys());
  }

 private:
  Options o_;
  Engine engine_;
};
ATTN_VARIANT(fixed, Fixed)

}  // namespace attn
