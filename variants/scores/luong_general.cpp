#include <algorithm>

#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/softmax/attention.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// luong_general: a learned bilinear score.
//   out_i = sum_j softmax_j(q_i W k_j) v_j,  W [D,D] for each head, no 1/sqrt(D);  j <= i when causal
//   Luong et al. 2015, arXiv:1508.04025, section 3.1 (general); W = I / sqrt(D) is full attention
//   useful flops 2 N D^2 + 2 N M (D + Dv) a head, the second half when causal; workspace N D a head
struct LuongGeneral {
  using Engine = kernels::Attention;
  static constexpr std::array dtypes = {DType::f32};

  static VariantInfo info() {
    return {.title = "Luong attention, general score",
            .formula = "out_i = sum_j softmax_j(q_i W k_j) v_j",
            .paper = "Luong et al. 2015, arXiv:1508.04025, section 3.1",
            .cost_in_n = "N^2 D",
            .exactness = Exactness::different,
            .grouped_heads = true};
  }

  // Logits of standard deviation 1 for inputs of standard deviation 1.
  static Parameters parameters(const Problem& p, const NoOptions&) {
    return {{.name = "W",
             .shape = {p.heads, p.head_dim, p.head_dim},
             .init = init::normal(1.0 / static_cast<double>(p.head_dim)),
             .axes = "heads, head_dim, head_dim",
             .doc = "q_i W k_j: rows meet q, columns k"}};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    Cost c = softmax_cost(p, count_pairs(p, [&](index_t i) { return visible_keys(p, i, 0, p.kv_len - 1); }));
    const auto squared = static_cast<double>(p.heads * p.head_dim * p.head_dim);
    c.flops += 2 * squared * static_cast<double>(p.batch * p.q_len);
    c.bytes += sizeof(float) * squared;
    return c;
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>& parameters) {
    const Tensor<T> logits = matmul_transposed(matmul(in.q, parameters["W"]), per_query_head(p, in.k));
    return matmul(softmax(logits, allowed_pairs(p, in, every_key)), per_query_head(p, in.v));
  }

  LuongGeneral(const Problem& p, const NoOptions&, WorkspacePlan& workspace)
      : p_(p), queries_(workspace.shared<float>(p.batch * p.heads * p.q_len * p.head_dim)), engine_(p, {.scale = 1.0}, workspace) {}

  void run(const Arrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const auto w = parameters.view<3>("W");
    const View<const float, 4> given = a.q.f32();
    const View<float, 4> queries(workspace.shared(queries_).data(), {p_.batch, p_.heads, p_.q_len, p_.head_dim});
    const index_t tiles = (p_.q_len + tile_rows - 1) / tile_rows;
    parallel_tasks(p_.batch * p_.heads * tiles, [&](index_t task, int) {
      const index_t h = task / tiles % p_.heads, b = task / tiles / p_.heads;
      const index_t count = a.lengths.empty() ? p_.q_len : p_.sequence(a.lengths[static_cast<std::size_t>(b)]).q_len;
      const index_t first = task % tiles * tile_rows, rows = std::min(tile_rows, count - first);
      if (rows <= 0) return;
      const auto q = given[b][h];
      kernels::gemm(rows, p_.head_dim, p_.head_dim, {q.row(first), q.stride(0)}, {w[h].data_handle(), p_.head_dim},
                    {queries[b][h].row(first), p_.head_dim});
    });
    kernels::EngineArrays arrays = a;
    arrays.q = queries;
    engine_.run(arrays, workspace, kernels::all_keys);
  }

 private:
  static constexpr index_t tile_rows = 192;

  Problem p_;
  Booking<float> queries_;
  Engine engine_;
};
ATTN_VARIANT(luong_general, LuongGeneral)

}  // namespace attn
