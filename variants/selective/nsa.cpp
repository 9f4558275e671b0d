#include <cmath>
#include <optional>

#include "attn/kernels/choose/by_block.hpp"
#include "attn/kernels/choose/compressed_choice.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/chosen_keys.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// nsa: native sparse attention: each query attends to compressed keys, to the blocks that these favour, and to a window, and gates the three.
//   out_i = g1 softmax(q_i.K~) V~ + g2 softmax over the keys of chosen blocks + g3 softmax over i - window < j <= i,  g = sigmoid(q_i W + b)
//   K~_c = mean of K[stride c .. stride c + block), V~ likewise, seen once its last token is not after i; zeros where none is
//   chosen: `keep` blocks of `select` keys, up to i: the first, the query's own, the one before, and those of the largest sum over the heads of
//   the kv head and the compressed keys of softmax(q_i.K~)_c times the strides that block and compressed key share
//   Yuan et al. 2025, arXiv:2502.11089; compression by means as in fla-org/flash-linear-attention, where the paper has a learned map; one K and V
//   for all three
//   useful flops 2 pairs (D + Dv) of the three; scores of blocks are not counted; workspace 3 N Dv a head, the chosen blocks, queries by block
// The choice is a constant to gradients.
struct Nsa {
  struct Options {
    index_t block = 32, stride = 16, select = 64, keep = 16, window = 512;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("block", &Options::block, 1, 65536, "keys that are compressed into one")
        .integer("stride", &Options::stride, 1, 65536, "keys from one compressed key to the next; divides block and select")
        .integer("select", &Options::select, 1, 65536, "keys of a block that is chosen")
        .integer("keep", &Options::keep, 3, 4096, "blocks that a query sees, the first and the two last ones included")
        .budget()
        .integer("window", &Options::window, 1, unlimited, "last keys that a query sees, its own included");
  }

  static VariantInfo info() {
    return {.title = "Native sparse attention",
            .formula = "out_i = g1 attention to means of keys + g2 attention to the blocks these favour + g3 attention to a window",
            .paper = "Yuan et al. 2025, arXiv:2502.11089",
            .cost_in_n = "N^2 / stride D + N (keep select + window) D",
            .fine_print = "g = sigmoid(q_i W + b), three numbers of each head. Equal scores go to the block that comes first.",
            .exactness = Exactness::different,
            .causality = Causality::always,
            .grouped_heads = true};
  }

  static Parameters parameters(const Problem& p, const Options&) {
    return {{.name = "W",
             .shape = {p.heads, p.head_dim, 3},
             .init = init::zeros(),
             .axes = "heads, head_dim, 3",
             .doc = "q_i W: of the gates"},
            {.name = "b", .shape = {p.heads, 1, 3}, .init = init::zeros(), .axes = "heads, 1, 3", .doc = "added to q_i W"}};
  }

  static Status supports(const Problem&, const Options& o) {
    if (o.block % o.stride != 0 || o.select % o.stride != 0)
      return refuse("counts overlaps in strides: stride=" + std::to_string(o.stride) + " must divide block and select");
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const kernels::CompressedRules rules = rules_of(o);
    return softmax_cost(p, count_pairs(p, [&](index_t i) -> index_t {
                          if (i < 0) return 0;
                          const index_t chosen = std::min(o.keep - 1, i / o.select) * o.select + i % o.select + 1;
                          return rules.visible(i) + chosen + std::min(i + 1, o.window);
                        }));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>& parameters) {
    const kernels::CompressedRules rules = rules_of(o);
    const index_t rows = std::ssize(in.position), count = rules.count(p.kv_len);
    const auto position = [&](index_t row) { return in.position[static_cast<std::size_t>(row)]; };
    Tensor<T> compressed = zeros<T>({p.batch, p.heads, rows, p.value_dim});
    if (count > 0) {
      const auto means = [&](const Tensor<T>& x) { return per_query_head(p, mean(windows(x, o.block, o.stride, 0, count), 3)); };
      const Mask seen = mask({rows, count}, [&](index_t row, index_t c) { return c * o.stride + o.block - 1 <= position(row); });
      compressed = matmul(softmax(matmul_transposed(in.q, means(in.k)) * static_cast<T>(p.scale()), seen), means(in.v));
    }
    const std::vector<std::int32_t> lists =
        kernels::compressed_choice(p, rules, cast<float>(in.q).data(), in.position, cast<float>(in.k).data());
    const auto sees = [&](index_t b, index_t h, index_t row, index_t j) {
      const auto list = lists.begin() + ((b * p.kv_heads + p.kv_head(h)) * rows + row) * rules.places();
      return rules.always(floor_div(position(row), o.select), j / o.select) ||
             std::find(list, list + rules.places(), j / o.select) != list + rules.places();
    };
    const Tensor<T> selected = masked_attention(p, in, chosen_pairs(p, in, sees));
    const Tensor<T> near = softmax_attention(p, in, [&](index_t i, index_t j) { return i - j < o.window; });
    const Tensor<T> gates = attn::sigmoid(matmul(in.q, parameters["W"]) + parameters["b"]);
    const auto gate = [&](index_t g) { return slice(gates, -1, g, g + 1); };
    return gate(0) * compressed + gate(1) * selected + gate(2) * near;
  }

  Nsa(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        rules_(rules_of(o)),
        count_(rules_.count(p.kv_len)),
        choice_(p, rules_, workspace),
        by_block_(p.batch * p.kv_heads, p.q_len, ceil_div(p.kv_len, o.select), rules_.places(), workspace),
        first_(p, {.queries = kernels::QueryBlocks::aligned(std::min(o.select, std::max(p.q_len, p.kv_len)))}, workspace),
        others_(p, {.queries = by_block_.queries()}, workspace),
        window_(p, {.keys_per_query = o.window}, workspace),
        keys_(workspace.shared<float>(p.batch * p.kv_heads * count_ * p.head_dim)),
        values_(workspace.shared<float>(p.batch * p.kv_heads * count_ * p.value_dim)),
        parts_(workspace.shared<float>(2 * p.batch * p.heads * p.q_len * p.value_dim)),
        lse_(workspace.shared<float>(p.batch * p.heads * p.q_len)) {
    if (count_ == 0) return;
    Problem of_means = p;
    of_means.kv_len = count_;
    of_means.causal = false;
    means_.emplace(of_means, kernels::EngineOptions{}, workspace);
  }

  void choose(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    choice_.compress(a.k, keys(workspace));
    choice_.run(a.q, keys(workspace), workspace);
  }
  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    choose(a, parameters, workspace);
    const View<float, 4> values(workspace.shared(values_).data(), {p_.batch, p_.kv_heads, count_, p_.value_dim});
    choice_.compress(a.v, values);
    window_.run({a.q, a.k, a.v, a.out}, workspace,
                [&](const kernels::QueryBlock&, kernels::KeyList& list) { list.all().band(o_.window - 1, 0); });
    if (means_) attend_means({a.q, keys(workspace), values, part(workspace, 0)}, workspace);
    attend_blocks(a, part(workspace, 1), workspace);
    combine(a, parameters, workspace);
  }

 private:
  static kernels::CompressedRules rules_of(const Options& o) { return {o.block, o.stride, o.select, o.keep}; }

  View<float, 4> keys(const Workspace& workspace) const {  // compressed
    return {workspace.shared(keys_).data(), {p_.batch, p_.kv_heads, count_, p_.head_dim}};
  }
  View<float, 4> part(const Workspace& workspace, index_t number) const {
    const index_t size = p_.batch * p_.heads * p_.q_len * p_.value_dim;
    return {workspace.shared(parts_).data() + number * size, {p_.batch, p_.heads, p_.q_len, p_.value_dim}};
  }

  // What all queries of a block see, then what only some of them do.
  void attend_means(const kernels::EngineArrays& arrays, const Workspace& workspace) const {
    const auto sees = [this](index_t row, index_t key) { return key < rules_.visible(p_.query_position(row)); };
    means_->run(arrays, workspace, [&](const kernels::QueryBlock& queries, kernels::KeyList& list) {
      const index_t all = std::max<index_t>(0, rules_.visible(p_.query_position(queries.row(0))));
      const index_t some = std::max<index_t>(0, rules_.visible(p_.query_position(queries.row(queries.count - 1))));
      if (all > 0) list.range(0, all);
      if (some > all) list.range(all, some - all).where(sees);
    });
  }

  // The blocks that queries of one block have in common, then place by place those that they chose.
  void attend_blocks(const FloatArrays& a, const View<float, 4>& out, const Workspace& workspace) const {
    const View<float, 3> lse(workspace.shared(lse_).data(), {p_.batch, p_.heads, p_.q_len});
    first_.run({a.q, a.k, a.v, out, lse}, workspace, [&](const kernels::QueryBlock& queries, kernels::KeyList& list) {
      const index_t own = floor_div(queries.position(0), o_.select);
      if (own > 1) list.range(0, o_.select);
      if (own >= 0) list.range(std::max<index_t>(0, own - 1) * o_.select, (own > 0 ? 2 : 1) * o_.select);
    });
    by_block_.group([&](index_t head) { return choice_.chosen(workspace, head / p_.kv_heads, head % p_.kv_heads); }, workspace);
    const auto table = [&](index_t b, index_t h) { return b * p_.kv_heads + p_.kv_head(h); };
    for (index_t r = 0; r < rules_.places(); ++r) {
      const auto rows = [&](index_t b, index_t h, index_t piece) { return by_block_.rows(workspace, table(b, h), r, piece, true); };
      const auto keys = [&](const kernels::QueryBlock& queries, kernels::KeyList& list) {
        list.range(by_block_.block(workspace, table(queries.batch, queries.head), r, queries.block) * o_.select, o_.select);
      };
      others_.run({a.q, a.k, a.v, out, lse, true}, workspace, rows, keys);
    }
  }

  void combine(const FloatArrays& a, const ParameterSet<float>& parameters, const Workspace& workspace) const {
    const index_t panels = ceil_div(p_.q_len, panel);
    parallel_tasks(p_.batch * p_.heads * panels, [&](index_t task, int) {
      const index_t h = task / panels % p_.heads, b = task / panels / p_.heads, first = task % panels * panel;
      const index_t rows = std::min(panel, p_.q_len - first), dv = p_.value_dim;
      const auto w = parameters.view<3>("W")[h], bias = parameters.view<3>("b")[h];
      const auto q = a.q[b][h];
      float gates[3 * panel], gate[panel];
      kernels::gemm(rows, 3, p_.head_dim, {q.row(first), q.stride(0)}, {w.data_handle(), 3}, {gates, 3});
      const kernels::Into to{a.out[b][h].row(first), a.out.stride(2)};
      for (const index_t g : {2, 0, 1}) {
        if (g == 0 && !means_) continue;
        for (index_t i = 0; i < rows; ++i) gate[i] = 1 / (1 + std::exp(-(gates[3 * i + g] + bias(0, g))));
        const kernels::Into from = g == 2 ? to : kernels::Into{part(workspace, g)[b][h].row(first), dv};
        kernels::scale_rows(rows, dv, from, gate, from);
        if (g != 2) kernels::add(rows, dv, from, to);
      }
    });
  }

  static constexpr index_t panel = 64;

  Problem p_;
  Options o_;
  kernels::CompressedRules rules_;
  index_t count_;  // of compressed keys
  kernels::CompressedChoice choice_;
  kernels::ByBlock by_block_;
  kernels::SoftmaxEngine first_, others_, window_;
  std::optional<kernels::SoftmaxEngine> means_;
  Booking<float> keys_, values_, parts_, lse_;
};
ATTN_VARIANT(nsa, Nsa)

}  // namespace attn
