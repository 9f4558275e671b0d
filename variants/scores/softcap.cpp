#include "attn/kernels/softmax/scored.hpp"
#include "attn/variant/variant.hpp"
#include "attn/variant/windowed.hpp"

namespace attn {

// softcap: softmax attention whose logits are bounded, over all keys or, with `window`, the nearest.
//   out_i = sum_j softmax_j(c tanh(q_i.k_j / (c sqrt(D)))) v_j;  |i - j| < window;  j <= i when causal
//   Gemma 2, google/gemma_pytorch: c = 50, after the scale and before the mask
//   useful flops 2 pairs (D + Dv); the softmax engine's workspace;  the larger c, the nearer to full attention
struct Softcap {
  using Engine = kernels::ScoredAttention;
  struct Options {
    double cap = 50;
    index_t window = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .number("cap", &Options::cap, 1e-3, 1e6, "c: no logit is larger")
        .integer("window", &Options::window, 0, unlimited, window_doc)
        .budget();
  }

  static VariantInfo info() {
    return {.title = "Bounded logits",
            .formula = "out_i = sum_j softmax_j(c tanh(q_i.k_j / (c sqrt(D)))) v_j",
            .paper = "Gemma 2 2024, google/gemma_pytorch",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::approximation,
            .grouped_heads = true};
  }

  static Cost cost(const Problem& p, const Options& o) { return windowed_cost(p, o.window); }
  static StateSpec state(const Problem& p, const Options& o) { return windowed_state(p, o.window); }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const auto cap = static_cast<T>(o.cap);
    const Tensor<T> logits = matmul_transposed(in.q, per_query_head(p, in.k)) * static_cast<T>(p.scale());
    const Mask seen = allowed_pairs(p, in, [&](index_t i, index_t j) { return within_window(o.window, i, j); });
    return matmul(softmax(tanh(logits / cap) * cap, seen), per_query_head(p, in.v));
  }

  Softcap(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : reach_(reach_of(o.window)),
        engine_(p, {.keys_per_query = o.window > 0 ? 2 * reach_ + 1 : kernels::anywhere, .softcap = o.cap}, workspace) {}

  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    engine_.run(a, workspace, [this](const kernels::QueryBlock&, kernels::KeyList& keys) { keys.all().band(reach_, reach_); });
  }

 private:
  index_t reach_;
  Engine engine_;
};
ATTN_VARIANT(softcap, Softcap)

}  // namespace attn
