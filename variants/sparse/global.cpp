#include "attn/kernels/softmax/attention.hpp"
#include "attn/kernels/softmax/rows_at.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// global: chosen tokens see every key and are seen by every query; nobody sees anything else.
//   out_i = softmax attention over A(i) = all keys for i in G, G otherwise;  j <= i when causal
//   G = the first `tokens` positions and those in `positions`. Rows that see no key are zero
//   Beltagy et al. 2020, arXiv:2004.05150, section 3.1; Ainslie et al. 2020, arXiv:2004.08483, section 3 (ETC, tokens in the sequence)
//   useful flops 2 pairs (D + Dv), pairs = 2 g N - g^2 with g = |G|; workspace a list of keys
struct Global {
  using Engine = kernels::Attention;
  static constexpr bool takes_mask = true;
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
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const std::vector<bool> global = is_global(p, o);
    const auto globals = global_keys(p, o);
    return softmax_cost(
        p,
        count_pairs(p,
                    [&](index_t i) {
                      if (i >= 0 && global[static_cast<std::size_t>(i)]) return visible_keys(p, i, 0, p.kv_len - 1);
                      if (!p.causal) return static_cast<index_t>(globals.size());
                      return static_cast<index_t>(std::upper_bound(globals.begin(), globals.end(), i) - globals.begin());
                    }),
        [&](index_t i, SeenKeys& seen) {
          if (i >= 0 && global[static_cast<std::size_t>(i)]) seen.add(i, 0, p.kv_len - 1);
          for (const std::int32_t j : globals) seen.add(i, j, j);
        });
  }

  // Of a causal sequence no token after the last global one is read again.
  static StateSpec state(const Problem& p, const Options& o) {
    const auto globals = global_keys(p, o);
    return p.causal && !globals.empty() ? kept_tokens(p, 0, globals.back() + 1) : kept_tokens(p, p.kv_len);
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const std::vector<bool> global = is_global(p, o);
    return softmax_attention(p, in, [&](index_t i, index_t j) {
      return (i >= 0 && global[static_cast<std::size_t>(i)]) || global[static_cast<std::size_t>(j)];
    });
  }

  Global(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : keys_(global_keys(p, o)),
        columns_(p, {.stretches = 3 + static_cast<index_t>(keys_.size())}, workspace),
        own_rows_(p, keys_, workspace),
        rows_(p, {.queries = kernels::QueryBlocks::listed(1, static_cast<index_t>(keys_.size()))}, workspace) {}

  auto global_columns() const {
    return [this](const kernels::QueryBlock&, kernels::KeyList& keys) {
      keys.listed(keys_.data(), static_cast<index_t>(keys_.size()));
    };
  }
  // Every row sees the global keys; the few global rows are then done again, with all keys.
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    columns_.run(a, workspace, global_columns());
    if (own_rows_.list(a.lengths, workspace)) rows_.run(a, workspace, own_rows_.in(workspace), kernels::all_keys);
  }
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    kernels::EngineGradients gradients{a, g};
    const auto global_rows = own_rows_.in(workspace);
    columns_.leave_out(global_rows(0, 0, 0), workspace);
    columns_.backward(a, gradients, workspace, global_columns());
    gradients.add = true;
    if (!keys_.empty()) rows_.backward(a, gradients, workspace, global_rows, kernels::all_keys);
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
  Engine columns_;
  kernels::RowsAt own_rows_;
  Engine rows_;
};
ATTN_VARIANT(global, Global)

}  // namespace attn
