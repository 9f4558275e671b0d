#include "attn/kernels/choose/block_choice.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/backward_cost.hpp"
#include "attn/variant/chosen_keys.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// block_topk: each block of queries attends to the blocks of keys that score best with it.
//   out_i = softmax attention over the keys of the blocks w in A(u),  u = floor(i / block);  j <= i when causal
//   A(u): the `keep` blocks of the largest score(u, w), of which w < first and |u - w| < local are always some; with cover > 0 as few as
//   have that share of the mass of softmax_w(score(u, w)). When causal w <= u.
//   score=mean: mean q . mean k / sqrt(D)                      MInference's block-sparse heads, microsoft/MInference
//   score=antidiagonal: mass of softmax attention between stretches of s = stride rows by sum_t q_(s-1-t).k_t / (s sqrt(D))
//                                                              XAttention, mit-han-lab/x-attention
//   score=similar: as mean, but a block whose rows have a mean cosine of at most `similarity` sees, or is seen by, all blocks
//                                                              SpargeAttn, arXiv:2502.18137
//   useful flops 2 pairs (D + Dv), pairs ~ N keep block; scoring 2 (N / block)^2 D, or 2 N^2 D / stride, is not counted, nor blocks that
//   are chosen beyond `keep` for their mass or for not being alike; workspace the lists of blocks and means, or with stretches N D
//   exact where keep is no less than the number of blocks
// The choice is a constant to gradients.
struct BlockTopk {
  using Rules = kernels::BlockRules;
  struct Options {
    index_t block = 64, keep = 16;
    double cover = 0;
    Rules::Score score = Rules::Score::mean;
    index_t stride = 16;
    double similarity = 0.6;
    index_t first = 1, local = 1;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("block", &Options::block, 1, unlimited, "length of a block; the last one may be shorter")
        .integer("keep", &Options::keep, 1, unlimited, "blocks that a block of queries sees, where cover=0")
        .budget()
        .number("cover", &Options::cover, 0, 1,
                "share of the mass of a softmax over the scores that the blocks must reach; 0: keep")
        .choice("score", &Options::score,
                {{"mean", Rules::Score::mean}, {"antidiagonal", Rules::Score::antidiagonal}, {"similar", Rules::Score::similar}},
                "mean: of means; antidiagonal: of stretches; similar: of means, where rows point the same way")
        .integer("stride", &Options::stride, 1, 4096, "antidiagonal: rows of a stretch, a divisor of block")
        .number("similarity", &Options::similarity, -1, 1, "similar: mean cosine that the rows of a block must exceed")
        .integer("first", &Options::first, 0, unlimited, "blocks at the start that are always seen")
        .integer("local", &Options::local, 0, unlimited,
                 "blocks around the queries' own, up to local - 1 away, that are always seen");
  }

  static VariantInfo info() {
    return {.title = "Best blocks",
            .formula = "softmax over the keys of the `keep` blocks of the largest score with the block of i",
            .paper = "MInference 2024, microsoft/MInference; SpargeAttn 2025, arXiv:2502.18137",
            .cost_in_n = "N keep block D + (N / block)^2 D",
            .fine_print =
                "Blocks that are always seen are some of the `keep`. A score that is no number loses to all others, and equal ones "
                "go to the block that comes first. When causal the mean of a block's queries still looks at all of them.",
            .exactness = Exactness::pattern,
            .cross = false,
            .grouped_heads = true,
            .row_wise = false,
            .membership_sees_future = true,
            .in_default_sweep = true,
            .time_exponent = 1};
  }

  static Status supports(const Problem& p, const Options& o) {
    if (o.score == Rules::Score::antidiagonal && o.block % o.stride != 0)
      return refuse("cuts blocks into stretches: stride=" + std::to_string(o.stride) +
                    " does not divide block=" + std::to_string(o.block));
    if (p.causal && o.local < 1)
      return refuse("shows causal queries their own block, or the first ones would see none: needs local of at least 1");
    return {};
  }

  // Where more blocks may be kept than are sure to be, those that are.
  static Cost cost(const Problem& p, const Options& o) {
    const Rules rules = rules_of(p, o);
    const index_t blocks = ceil_div(p.kv_len, rules.block), missing = blocks * rules.block - p.kv_len;  // of the last block
    double pairs = 0;
    for (index_t u = 0; u < blocks; ++u) {
      const index_t visible = p.causal ? u + 1 : blocks;
      index_t always = 0;
      for (index_t w = 0; w < std::min(rules.first, visible); ++w) ++always;
      for (index_t w = std::max(rules.first, u - rules.local + 1); w < std::min(visible, u + rules.local); ++w) ++always;
      const index_t kept = std::min(visible, std::max({always, rules.cover > 0 ? 1 : rules.keep}));
      const auto rows = static_cast<double>(u + 1 < blocks ? rules.block : rules.block - missing);
      if (p.causal) {
        pairs += rows * static_cast<double>((kept - 1) * rules.block) + rows * (rows + 1) / 2;
      } else {
        const bool last = kept == visible || rules.always(u, blocks - 1);
        pairs += rows * static_cast<double>(kept * rules.block - (last ? missing : 0));
      }
    }
    return softmax_cost(p, pairs);
  }
  static Cost backward_cost(const Problem& p, const Options& o) { return chosen_keys_backward_cost(p, cost(p, o)); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const Rules rules = rules_of(p, o);
    const std::vector<bool> chosen = kernels::chosen_blocks(p, rules, cast<float>(in.q).data(), cast<float>(in.k).data());
    const index_t blocks = ceil_div(p.kv_len, rules.block);
    return masked_attention(p, in, chosen_pairs(p, in, [&](index_t b, index_t h, index_t i, index_t j) {
                              const index_t u = i / rules.block, w = j / rules.block;
                              return chosen[static_cast<std::size_t>(((b * p.heads + h) * blocks + u) * blocks + w)];
                            }));
  }

  BlockTopk(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : block_(rules_of(p, o).block),
        choice_(p, rules_of(p, o), workspace),
        engine_(p, {.queries = kernels::QueryBlocks::aligned(block_)}, workspace) {}

  auto keys(const Workspace& workspace) const {
    return [&, this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      const auto list = choice_.blocks(workspace, queries.batch, queries.head, queries.position(0) / block_);
      keys.listed_blocks(list.data(), std::ssize(list), block_);
    };
  }
  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    choice_.run(a.q, a.k, workspace);
    engine_.run({a.q, a.k, a.v, a.out}, workspace, keys(workspace));
  }
  // What was chosen is held fixed.
  void backward(const FloatArrays& a, const ParameterSet<float>&, const FloatGradients& g, Workspace& workspace) const {
    engine_.backward({a.q, a.k, a.v}, {a.out, g.d_out, g.d_q, g.d_k, g.d_v}, workspace, keys(workspace));
  }

 private:
  // Longer blocks, and more of them, than there are say the same.
  static Rules rules_of(const Problem& p, const Options& o) {
    const index_t whole = round_up(p.kv_len, o.score == Rules::Score::antidiagonal ? o.stride : 1), most = p.kv_len + 1;
    return {.score = o.score,
            .block = std::min(o.block, whole),
            .keep = std::min(o.keep, most),
            .cover = o.cover,
            .stride = o.stride,
            .similarity = o.similarity,
            .first = std::min(o.first, most),
            .local = std::min(o.local, most)};
  }

  index_t block_;
  kernels::BlockChoice choice_;
  kernels::SoftmaxEngine engine_;
};
ATTN_VARIANT(block_topk, BlockTopk)

}  // namespace attn
