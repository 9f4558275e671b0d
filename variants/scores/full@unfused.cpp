#include <cmath>
#include <span>

#include "attn/kernels/dense/onednn.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// full@unfused: full attention as three operators with the N x M matrix in memory between them: what a framework without a
// fused kernel does. The products are oneDNN's.
//   S = Q K^T / sqrt(D);  P = softmax(S + mask), row by row;  out = P V   (definition and paper: full.cpp)
//   the work done is not halved when causal; workspace 4 N M bytes a head
struct FullUnfused {
  static constexpr bool takes_mask = true;

  static ImplementationInfo info() {
    return {.title = "three operators, the N x M weights in memory", .in_default_sweep = true, .formerly = "full_unfused"};
  }

  FullUnfused(const Problem& p, const OptionValues&, WorkspacePlan& workspace)
      : p_(p), weights_(workspace.shared<float>(p.batch * p.heads * p.q_len * p.kv_len)) {
    kernels::prepare_sgemm();
  }

  void run(const Arrays& given, const ParameterSet<float>&, Workspace& workspace) const {
    const FloatArrays a(given);
    const View<const float, 4> mask = p_.mask.given() ? given.more["mask"].f32() : View<const float, 4>();
    const auto scale = static_cast<float>(p_.scale());
    const View<float, 4> weights(workspace.shared(weights_).data(), {p_.batch, p_.heads, p_.q_len, p_.kv_len});
    each_tile([&](index_t b, index_t h, index_t first, index_t rows) {
      const auto q = a.q[b][h], k = a.k[b][p_.kv_head(h)];
      kernels::sgemm(kernels::Transposed::no, kernels::Transposed::yes, rows, p_.kv_len, p_.head_dim, scale, q.row(first),
                     q.stride(0), k.data_handle(), k.stride(0), 0, weights[b][h].row(first), p_.kv_len);
    });
    each_tile([&](index_t b, index_t h, index_t first, index_t rows) {
      for (index_t i = first; i < first + rows; ++i) {
        float* row = weights[b][h].row(i);
        index_t keys = visible_keys(p_, p_.query_position(i), 0, p_.kv_len - 1);
        if (p_.mask.given() && !add_mask(mask, b, h, i, {row, static_cast<std::size_t>(keys)})) keys = 0;
        if (keys > 0) kernels::softmax(1, keys, {row, p_.kv_len}, 1.0f, {row, p_.kv_len});
        std::fill(row + keys, row + p_.kv_len, 0.0f);
      }
    });
    each_tile([&](index_t b, index_t h, index_t first, index_t rows) {
      const auto v = a.v[b][p_.kv_head(h)];
      const auto o = a.out[b][h];
      kernels::sgemm(kernels::Transposed::no, kernels::Transposed::no, rows, p_.value_dim, p_.kv_len, 1, weights[b][h].row(first),
                     p_.kv_len, v.data_handle(), v.stride(0), 0, o.row(first), o.stride(0));
    });
  }

 private:
  // False where the mask hides all of the row.
  static bool add_mask(const View<const float, 4>& mask, index_t b, index_t h, index_t i, std::span<float> logits) {
    const auto of_head = mask[mask.extent(0) == 1 ? 0 : b][mask.extent(1) == 1 ? 0 : h];
    const float* numbers = of_head.row(of_head.extent(0) == 1 ? 0 : i);
    bool any = false;
    for (std::size_t j = 0; j < logits.size(); ++j) {
      logits[j] += numbers[j];
      any = any || !std::isinf(numbers[j]);
    }
    return any;
  }

  // Calls f(batch, head, first row, rows) for tiles of query rows, in parallel.
  template <class F>
  void each_tile(F f) const {
    constexpr index_t tile_rows = 256;
    const index_t tiles = (p_.q_len + tile_rows - 1) / tile_rows;
    parallel_tasks(p_.batch * p_.heads * tiles, [&](index_t task, int) {
      const index_t first = task % tiles * tile_rows;
      f(task / tiles / p_.heads, task / tiles % p_.heads, first, std::min(tile_rows, p_.q_len - first));
    });
  }

  Problem p_;
  Booking<float> weights_;
};
ATTN_IMPLEMENTATION(full, unfused, FullUnfused)

}  // namespace attn
