#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// global: chosen tokens see every key and are seen by every query; nobody sees anything else.
//   out_i = softmax attention over A(i) = all keys for i in G, G otherwise;  j <= i when causal
//   G = the first `tokens` positions and those in `positions`. Rows that see no key are zero
//   Beltagy et al. 2020, arXiv:2004.05150, section 3.1; Ainslie et al. 2020, arXiv:2004.08483, section 3 (ETC, tokens in the sequence)
//   useful flops 2 pairs (D + Dv), pairs = 2 g N - g^2 with g = |G|; workspace a list of keys
struct Global {
  struct Options {
    index_t tokens = 16;
    std::vector<index_t> positions;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("tokens", &Options::tokens, 0, unlimited, "global tokens at the start of the sequence")
        .budget()
        .positions("positions", &Options::positions, "further global tokens; positions beyond the end are left out");
  }

  static VariantInfo info() {
    return {.title = "Global tokens",
            .formula = "softmax over all keys for global tokens, over the global keys for the others",
            .paper = "Ainslie et al. 2020, arXiv:2004.08483, section 3",
            .cost_in_n = "N g D",
            .exactness = Exactness::pattern,
            .cross = false,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const std::vector<bool> global = is_global(p, o);
    index_t before = 0;  // global keys up to the row at hand, when causal; all of them otherwise
    if (!p.causal) before = std::count(global.begin(), global.end(), true);
    return softmax_cost(p, count_pairs(p, [&](index_t i) {
                          const bool mine = global[static_cast<std::size_t>(i)];
                          if (p.causal && mine) ++before;
                          return mine ? visible_keys(p, i, 0, p.kv_len - 1) : before;
                        }));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const std::vector<bool> global = is_global(p, o);
    return softmax_attention(
        p, in, [&](index_t i, index_t j) { return global[static_cast<std::size_t>(i)] || global[static_cast<std::size_t>(j)]; });
  }

  Global(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : keys_(global_keys(p, o)),
        columns_(p, {}, workspace),
        rows_(p, {.queries = kernels::QueryBlocks::listed(1, static_cast<index_t>(keys_.size()))}, workspace) {}

  auto global_columns() const {
    return [this](const kernels::QueryBlock&, kernels::KeyList& keys) {
      keys.listed(keys_.data(), static_cast<index_t>(keys_.size()));
    };
  }
  auto global_rows() const {
    return [this](index_t, index_t, index_t) { return std::span<const std::int32_t>(keys_); };
  }
  // Every row sees the global keys; the few global rows are then done again, with all keys.
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    columns_.run(a, workspace, global_columns());
    if (!keys_.empty()) rows_.run(a, workspace, global_rows(), kernels::all_keys);
  }
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    kernels::EngineGradients gradients{a, g};
    columns_.leave_out(keys_, workspace);
    columns_.backward(a, gradients, workspace, global_columns());
    gradients.add = true;
    if (!keys_.empty()) rows_.backward(a, gradients, workspace, global_rows(), kernels::all_keys);
  }

 private:
  static std::vector<bool> is_global(const Problem& p, const Options& o) {
    std::vector<bool> global(static_cast<std::size_t>(p.kv_len), false);
    std::fill_n(global.begin(), std::min(o.tokens, p.kv_len), true);
    for (const index_t position : o.positions) {
      if (position < p.kv_len) global[static_cast<std::size_t>(position)] = true;
    }
    return global;
  }
  static std::vector<std::int32_t> global_keys(const Problem& p, const Options& o) {
    const std::vector<bool> global = is_global(p, o);
    std::vector<std::int32_t> keys;
    for (std::size_t j = 0; j < global.size(); ++j) {
      if (global[j]) keys.push_back(static_cast<std::int32_t>(j));
    }
    return keys;
  }

  std::vector<std::int32_t> keys_;
  kernels::SoftmaxEngine columns_, rows_;
};
ATTN_VARIANT(global, Global)

}  // namespace attn
