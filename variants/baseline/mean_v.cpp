#include <algorithm>
#include <array>
#include <span>

#include "attn/variant/variant.hpp"

namespace attn {

// mean_v: every query gets the mean of the values it may see. What attention with constant logits gives: the floor of
// every accuracy comparison.
//   out_i = 1/|A(i)| sum_{j in A(i)} v_j,   A(i) = all keys, or those up to i when causal; zeros where A(i) is empty
//   useful flops ~ M Dv (+ N Dv when causal); no workspace that grows with N
struct MeanV {
  static VariantInfo info() {
    return {.title = "Mean of V: the accuracy floor",
            .formula = "out_i = mean of the visible v_j",
            .paper = "baseline",
            .cost_in_n = "N D",
            .exactness = Exactness::approximation,
            .grouped_heads = true,
            .in_default_sweep = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    const auto keys = static_cast<double>(p.batch * p.kv_heads * p.kv_len * p.value_dim);
    const auto outputs = static_cast<double>(p.batch * p.heads * p.q_len * p.value_dim);
    return {.flops = keys + (p.causal ? outputs : 0), .bytes = sizeof(float) * (keys + outputs), .exps = 0};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Inputs<T>& in, const ParameterSet<T>&) {
    const Tensor<T> logits = zeros<T>({static_cast<index_t>(in.position.size()), p.kv_len});
    return matmul(softmax(logits, allowed_pairs(p, in, every_key)), per_query_head(p, in.v));
  }

  // Sums run over blocks of block_rows keys, in double over blocks: a float sum of 2^20 values would lose digits.
  MeanV(const Problem& p, const NoOptions&, WorkspacePlan& workspace)
      : p_(p),
        blocks_((p.kv_len + block_rows - 1) / block_rows),
        sums_(workspace.shared<double>(p.batch * p.kv_heads * blocks_ * p.value_dim)) {}

  void run(const FloatInputs& in, const ParameterSet<float>&, Output out, Workspace& workspace) const {
    const std::span<double> sums = workspace.shared(sums_);
    const auto block_sum = [&](index_t batch, index_t head, index_t block) {
      return sums.subspan(static_cast<std::size_t>(((batch * p_.kv_heads + head) * blocks_ + block) * p_.value_dim),
                          static_cast<std::size_t>(p_.value_dim));
    };
    parallel_tasks(p_.batch * p_.kv_heads * blocks_, [&](index_t task, int) {
      const index_t block = task % blocks_, head = task / blocks_ % p_.kv_heads, batch = task / blocks_ / p_.kv_heads;
      const std::span<double> sum = block_sum(batch, head, block);
      std::fill(sum.begin(), sum.end(), 0.0);
      for (index_t j = block * block_rows; j < std::min(p_.kv_len, (block + 1) * block_rows); ++j)
        add_row(sum, in.v[batch][head].row(j));
    });
    // Each task writes one block of queries: all of them from the total, or, when causal, from a running sum.
    const index_t tiles = (p_.q_len + block_rows - 1) / block_rows;
    parallel_tasks(p_.batch * p_.heads * tiles, [&](index_t task, int) {
      const index_t tile = task % tiles, head = task / tiles % p_.heads, batch = task / tiles / p_.heads;
      const auto v = in.v[batch][p_.kv_head(head)];
      std::array<double, 256> running{};
      const std::span<double> sum(running.data(), static_cast<std::size_t>(p_.value_dim));
      index_t keys = 0;
      const auto advance_to = [&](index_t end) {
        for (; keys < end && keys % block_rows == 0 && keys + block_rows <= end; keys += block_rows) {
          const auto whole = block_sum(batch, p_.kv_head(head), keys / block_rows);
          for (std::size_t d = 0; d < sum.size(); ++d) sum[d] += whole[d];
        }
        for (; keys < end; ++keys) add_row(sum, v.row(keys));
      };
      if (!p_.causal) advance_to(p_.kv_len);
      for (index_t i = tile * block_rows; i < std::min(p_.q_len, (tile + 1) * block_rows); ++i) {
        if (p_.causal) advance_to(std::clamp<index_t>(p_.query_position(i) + 1, 0, p_.kv_len));
        const double scale = keys > 0 ? 1.0 / static_cast<double>(keys) : 0.0;
        float* row = out[batch][head].row(i);
        for (std::size_t d = 0; d < sum.size(); ++d) row[d] = static_cast<float>(sum[d] * scale);
      }
    });
  }

 private:
  static constexpr index_t block_rows = 256;

  static void add_row(std::span<double> sum, const float* row) {
    for (std::size_t d = 0; d < sum.size(); ++d) sum[d] += static_cast<double>(row[d]);
  }

  Problem p_;
  index_t blocks_;
  Booking<double> sums_;
};
ATTN_VARIANT(mean_v, MeanV)

}  // namespace attn
