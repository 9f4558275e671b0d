#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// local: softmax over the keys within `left` and `right` of the query, self included, and over the first `sinks` keys.
//   out_i = sum_{j in A(i)} softmax_j(q_i.k_j / sqrt(D)) v_j,  A(i) = {i-left <= j <= i+right} u {j < sinks};  j <= i when causal
//   Beltagy et al. 2020, arXiv:2004.05150, section 3.1; sinks: Xiao et al. 2023, arXiv:2309.17453, section 3
//   useful flops 2 pairs (D + Dv), pairs ~ N (left + right + 1 + sinks); no workspace that grows with N;
//   exact for left, right >= N - 1
struct Local {
  using Engine = kernels::Attention;
  static constexpr bool takes_mask = true;
  struct Options {
    index_t left = 128, right = 128, sinks = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("left", &Options::left, 0, unlimited, "keys allowed before the query")
        .budget()
        .integer("right", &Options::right, 0, unlimited, "keys allowed after the query")
        .budget()
        .integer("sinks", &Options::sinks, 0, unlimited, "first keys that every query sees besides");
  }

  static VariantInfo info() {
    return {.title = "Sliding window",
            .formula = "softmax over i-left <= j <= i+right, and over j < sinks",
            .paper = "Beltagy et al. 2020, arXiv:2004.05150, section 3.1",
            .cost_in_n = "N (left+right+1) D",
            .exactness = Exactness::pattern,
            .grouped_heads = true,
            .in_default_sweep = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const Options& o) {
    return softmax_cost(p,
                        count_pairs(p,
                                    [&](index_t i) {
                                      const index_t window = visible_keys(p, i, i - o.left, i + o.right);
                                      return window + visible_keys(p, i, 0, std::min(o.sinks - 1, i - o.left - 1));
                                    }) +
                            sinks_after(p, o),
                        [&](index_t i, SeenKeys& seen) { seen.add(i, i - o.left, i + o.right), seen.add(i, 0, o.sinks - 1); });
  }

  // The keys and values of a window, and of the sinks.
  static StateSpec state(const Problem& p, const Options& o) {
    return kept_tokens(p, o.left + 1 + (p.causal ? 0 : o.right), o.sinks);
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    return softmax_attention(p, in, [&](index_t i, index_t j) { return (i - j <= o.left && j - i <= o.right) || j < o.sinks; });
  }

  Local(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : o_(o), engine_(p, {.keys_per_query = o.left + o.right + 1 + o.sinks}, workspace) {}

  auto keys() const {
    return [this](const kernels::QueryBlock&, kernels::KeyList& keys) {
      keys.all().band(o_.left, o_.right);
      if (o_.sinks > 0) keys.range(0, o_.sinks).outside(o_.left, o_.right);
    };
  }
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const { engine_.run(a, workspace, keys()); }
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    engine_.backward(a, {a, g}, workspace, keys());
  }

 private:
  // Sinks that lie after the window: for queries before them, where nothing is causal.
  static double sinks_after(const Problem& p, const Options& o) {
    return count_pairs(p, [&](index_t i) { return visible_keys(p, i, i + o.right + 1, o.sinks - 1); });
  }

  Options o_;
  Engine engine_;
};
ATTN_VARIANT(local, Local)

}  // namespace attn
