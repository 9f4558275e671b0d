#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// dilated: every `step`-th neighbour, `window` of them to each side, self included.
//   out_i = softmax attention over {j : j = i + k step, |k| <= window};  j <= i when causal
//   Beltagy et al. 2020, arXiv:2004.05150, section 3.1 ("dilated sliding window")
//   useful flops 2 pairs (D + Dv), pairs ~ N (2 window + 1); no workspace that grows with N. Positions equal modulo `step`
//   only see each other, so each residue class is a sliding window over rows `step` apart: nothing is gathered
struct Dilated {
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
            .cross = false,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const Options& o) {
    return softmax_cost(p, count_pairs(p, [&](index_t i) {
                          const index_t before = std::min(o.window, i / o.step);
                          const index_t after = std::min(o.window, (p.kv_len - 1 - i) / o.step);
                          return 1 + before + (p.causal ? 0 : after);
                        }));
  }

  // A window and what lies between its keys: the next query reads that.
  static StateSpec state(const Problem& p, const Options& o) {
    const index_t reach = std::min(o.window, p.kv_len) * std::min(o.step, p.kv_len);
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
      : o_{std::min(o.window, p.kv_len), std::min(o.step, p.kv_len)},
        engine_(p, {.queries = kernels::QueryBlocks::classes(o_.step), .keys_per_query = 2 * o_.window + 1}, workspace) {}

  auto keys() const {
    return [this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      keys.strided(queries.first % o_.step, o_.step, keys.kv_len()).band(o_.window * o_.step, o_.window * o_.step);
    };
  }
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const { engine_.run(a, workspace, keys()); }
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    engine_.backward(a, {a, g}, workspace, keys());
  }

 private:
  Options o_;
  kernels::SoftmaxEngine engine_;
};
ATTN_VARIANT(dilated, Dilated)

}  // namespace attn
