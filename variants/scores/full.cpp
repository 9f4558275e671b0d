#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// full: softmax attention over every key, the operator that the others thin out or replace. Tiled, never N x M.
//   out_i = sum_j softmax_j(q_i.k_j / sqrt(D)) v_j,  j <= i when causal; plus mask_ij within the softmax where the problem has one
//   Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1; online softmax: Milakov & Gimelshein 2018, arXiv:1805.02867
//   useful flops 2 N M (D + Dv), half when causal; workspace a few tiles a worker
struct Full {
  using Engine = kernels::Attention;
  static constexpr bool takes_mask = true;

  static VariantInfo info() {
    return {.title = "Full attention, fused",
            .formula = "out_i = sum_j softmax_j(q_i.k_j / sqrt(D)) v_j",
            .paper = "Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::exact,
            .grouped_heads = true,
            .in_default_sweep = true};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    return softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); }));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return softmax_attention(p, in, every_key);
  }

  Full(const Problem& p, const NoOptions&, WorkspacePlan& workspace) : engine_(p, {}, workspace) {}

  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    engine_.run(a, workspace, kernels::all_keys);
  }
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    engine_.backward(a, {a, g}, workspace, kernels::all_keys);
  }

 private:
  Engine engine_;
};
ATTN_VARIANT(full, Full)

}  // namespace attn
