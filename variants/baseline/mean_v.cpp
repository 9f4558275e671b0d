#include <algorithm>
#include <array>

#include "attn/exec/topology.hpp"
#include "attn/kernels/dense/repeat.hpp"
#include "attn/kernels/dense/rows.hpp"
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
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    const auto keys = static_cast<double>(p.batch * p.kv_heads * p.kv_len * p.value_dim);
    const auto outputs = static_cast<double>(p.batch * p.heads * p.q_len * p.value_dim);
    return {.flops = keys + (p.causal ? outputs : 0), .bytes = v_bytes(p) + out_bytes(p), .exps = 0};
  }

  // The sum, and what was lost in its rounding: a float sum of 2^20 values would lose digits.
  static StateSpec state(const Problem& p, const NoOptions&) {
    return {{{"sum", {p.kv_heads, p.value_dim}}, {"lost", {p.kv_heads, p.value_dim}}}};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    const Tensor<T> logits = zeros<T>({static_cast<index_t>(in.position.size()), p.kv_len});
    return matmul(softmax(logits, allowed_pairs(p, in, every_key)), per_query_head(p, in.v));
  }

  // Sums over blocks of block_rows keys in float, over blocks in double.
  MeanV(const Problem& p, const NoOptions&, WorkspacePlan& workspace)
      : p_(p),
        blocks_((p.kv_len + block_rows - 1) / block_rows),
        past_caches_(v_bytes(p) + out_bytes(p) > static_cast<double>(last_level_cache_bytes())),
        sums_(workspace.shared<float>(p.batch * p.kv_heads * blocks_ * p.value_dim)) {}

  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const View<float, 4> sums(workspace.shared(sums_).data(), {p_.batch, p_.kv_heads, blocks_, p_.value_dim});
    parallel_tasks(p_.batch * p_.kv_heads * blocks_, [&](index_t task, int) {
      const index_t block = task % blocks_, head = task / blocks_ % p_.kv_heads, batch = task / blocks_ / p_.kv_heads;
      const auto v = a.v[batch][head];
      const index_t first = block * block_rows;
      float* sum = sums[batch][head].row(block);
      std::fill_n(sum, p_.value_dim, 0.0f);
      kernels::add_column_sums(std::min(block_rows, p_.kv_len - first), p_.value_dim, {v.row(first), v.stride(0)}, sum);
    });
    // A task writes one block of queries: all of them from the total, or, when causal, from a running sum.
    const index_t tiles = (p_.q_len + block_rows - 1) / block_rows;
    parallel_tasks(p_.batch * p_.heads * tiles, [&](index_t task, int) {
      const index_t tile = task % tiles, head = task / tiles % p_.heads, batch = task / tiles / p_.heads;
      const auto v = a.v[batch][p_.kv_head(head)];
      const auto block_sums = sums[batch][p_.kv_head(head)];
      std::array<double, 256> sum{};
      index_t keys = 0;
      const auto add_row = [&](const float* row) {
        for (index_t d = 0; d < p_.value_dim; ++d) sum[static_cast<std::size_t>(d)] += static_cast<double>(row[d]);
      };
      const auto advance_to = [&](index_t end) {
        for (; keys + block_rows <= end && keys % block_rows == 0; keys += block_rows) add_row(block_sums.row(keys / block_rows));
        if (end == p_.kv_len && keys % block_rows == 0 && keys < end) keys = end, add_row(block_sums.row(blocks_ - 1));
        for (; keys < end; ++keys) add_row(v.row(keys));
      };
      const index_t first = tile * block_rows, last = std::min(p_.q_len, first + block_rows);
      const auto write = [&](float* row) {
        const double scale = keys > 0 ? 1.0 / static_cast<double>(keys) : 0.0;
        for (index_t d = 0; d < p_.value_dim; ++d) row[d] = static_cast<float>(sum[static_cast<std::size_t>(d)] * scale);
      };
      const auto out = a.out[batch][head];
      if (p_.causal) {
        for (index_t i = first; i < last; ++i) {
          advance_to(std::clamp<index_t>(p_.query_position(i) + 1, 0, p_.kv_len));
          write(out.row(i));
        }
        return;
      }
      std::array<float, 256> row;
      advance_to(p_.kv_len);
      write(row.data());
      kernels::repeat_row(last - first, p_.value_dim, row.data(), {out.row(first), out.stride(0)}, past_caches_);
    });
  }

  void absorb(const FloatArrays& tokens, const ParameterSet<float>&, const State& state, Workspace&) const {
    each_head(state, [&](index_t b, index_t h, float* sum, float* lost) {
      for (index_t t = 0; t < tokens.v.extent(2); ++t) add(tokens.v[b][h].row(t), sum, lost);
    });
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>&, const State& state, Workspace&) const {
    const double scale = state.length() > 0 ? 1.0 / static_cast<double>(state.length()) : 0.0;
    each_head(state, [&](index_t b, index_t h, const float* sum, const float* lost) {
      for (index_t head = 0; head < p_.heads; ++head) {
        if (p_.kv_head(head) != h) continue;
        float* const row = queries.out[b][head].row(0);
        for (index_t d = 0; d < p_.value_dim; ++d)
          row[d] = static_cast<float>((static_cast<double>(sum[d]) + static_cast<double>(lost[d])) * scale);
      }
    });
  }
  void merge(State& into, const State& later) const {
    const auto sums = later["sum"].f32<3>(), lost_there = later["lost"].f32<3>();
    each_head(into, [&](index_t b, index_t h, float* sum, float* lost) {
      add(sums[b].row(h), sum, lost);
      add(lost_there[b].row(h), sum, lost);
    });
  }

 private:
  // Knuth 1997, section 4.2.2, theorem B: sum + lost is what they were, to the rounding of lost.
  void add(const float* row, float* sum, float* lost) const {
    for (index_t d = 0; d < p_.value_dim; ++d) {
      const float before = sum[d], after = before + row[d], taken = after - before;
      lost[d] += (before - (after - taken)) + (row[d] - taken);
      sum[d] = after;
    }
  }
  template <class F>
  void each_head(const State& state, F f) const {
    const auto sum = state["sum"].f32_out<3>(), lost = state["lost"].f32_out<3>();
    for (index_t b = 0; b < p_.batch; ++b)
      for (index_t h = 0; h < p_.kv_heads; ++h) f(b, h, sum[b].row(h), lost[b].row(h));
  }

  static constexpr index_t block_rows = 256;

  Problem p_;
  index_t blocks_;
  bool past_caches_;  // the output does not stay in them
  Booking<float> sums_;
};
ATTN_VARIANT(mean_v, MeanV)

}  // namespace attn
