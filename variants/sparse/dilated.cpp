#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// dilated: every `step`-th neighbour, `window` of them to each side, self included.
//   out_i = softmax attention over {j : j = i + k step, |k| <= window};  j <= i when causal
//   Beltagy et al. 2020, arXiv:2004.05150, section 3.1 ("dilated sliding window")
//   useful flops 2 pairs (D + Dv), pairs ~ N (2 window + 1); no workspace that grows with N. Positions equal modulo `step`
//   only see each other, so each residue class is a sliding window over rows `step` apart: nothing is gathered
struct Dilated {
  using Engine = kernels::Attention;
  static constexpr bool takes_mask = true;
  struct Options {
    index_t window = 64, step = 4;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("window", &Options::window, 0, unlimited, "neighbours to each side")
        .budget()
        .integer("step", &Options::step, 1, unlimited, "distance between neighbours");
  }

  static VariantInfo info() {
    return {.title = "Dilated sliding window",
            .formula = "softmax over j = i + k step, |k| <= window",
            .paper = "Beltagy et al. 2020, arXiv:2004.05150, section 3.1",
            .cost_in_n = "N (2 window+1) D",
            .exactness = Exactness::pattern,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const auto [window, step] = within(p, o);
    const index_t reach = window * step;
    return softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, i - reach, i + reach, step); }),
                        [&](index_t i, SeenKeys& seen) { seen.add(i, i - reach, i + reach, step); });
  }

  // A window and what lies between its keys: the next query reads that.
  static StateSpec state(const Problem& p, const Options& o) {
    const auto [window, step] = within(p, o);
    const index_t reach = window * step;
    return kept_tokens(p, (p.causal ? 1 : 2) * reach + 1);
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    return softmax_attention(p, in, [&](index_t i, index_t j) {
      const index_t distance = std::abs(i - j);
      return distance % o.step == 0 && distance / o.step <= o.window;
    });
  }

  Dilated(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : o_(within(p, o)),
        engine_(p, {.queries = kernels::QueryBlocks::classes(o_.step), .keys_per_query = 2 * o.window + 1}, workspace) {}

  auto keys() const {
    return [this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      keys.strided(floor_mod(queries.position(0), o_.step), o_.step, keys.kv_len()).band(o_.window * o_.step, o_.window * o_.step);
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
    return {std::min(o.window, longest), std::min(o.step, longest)};
  }

  Options o_;
  Engine engine_;
};
ATTN_VARIANT(dilated, Dilated)

}  // namespace attn
