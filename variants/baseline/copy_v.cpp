#include <algorithm>
#include <cstring>

#include "attn/variant/variant.hpp"

namespace attn {

// copy_v: the output is V itself. Nothing that reads V and writes an output of its size can be faster: the bandwidth
// ceiling of the table.
//   out_i = v_i
//   no flops; reads V, writes the output; exact copy
struct CopyV {
  static VariantInfo info() {
    return {.title = "Copy of V: the bandwidth ceiling",
            .formula = "out_i = v_i",
            .paper = "baseline",
            .cost_in_n = "N D bytes",
            .exactness = Exactness::different,
            .reads = Reads::xv,
            .cross = false,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const NoOptions&) {
    return {.flops = 0, .bytes = v_bytes(p) + out_bytes(p), .exps = 0};
  }

  // The last token.
  static StateSpec state(const Problem& p, const NoOptions&) { return {{{"v", {p.kv_heads, p.value_dim}}}}; }

  template <class T>
  static Tensor<T> definition(const Problem& p, const NoOptions&, const Values<T>& in, const ParameterSet<T>&) {
    return take(per_query_head(p, in.v), Indices({static_cast<index_t>(in.position.size())}, in.position), 2);
  }

  CopyV(const Problem& p, const NoOptions&, WorkspacePlan&) : p_(p) {}

  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace&) const {
    constexpr index_t rows_per_task = 512;
    const index_t tiles = (p_.q_len + rows_per_task - 1) / rows_per_task;
    parallel_tasks(p_.batch * p_.heads * tiles, [&](index_t task, int) {
      const index_t head = task / tiles % p_.heads;
      const index_t batch = task / tiles / p_.heads;
      const index_t first = task % tiles * rows_per_task;
      const index_t last = std::min(first + rows_per_task, p_.q_len);
      const auto from = a.v[batch][p_.kv_head(head)];
      const auto to = a.out[batch][head];
      for (index_t i = first; i < last; ++i)
        std::memcpy(to.row(i), from.row(i), static_cast<std::size_t>(p_.value_dim) * sizeof(float));
    });
  }

  void absorb(const FloatArrays& tokens, const ParameterSet<float>&, const State& state, Workspace&) const {
    const auto last = state["v"].f32_out<3>();
    for (index_t b = 0; b < p_.batch; ++b)
      for (index_t h = 0; h < p_.kv_heads; ++h) std::copy_n(tokens.v[b][h].row(tokens.v.extent(2) - 1), p_.value_dim, last[b].row(h));
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>&, const State& state, Workspace&) const {
    const auto last = state["v"].f32<3>();
    for (index_t b = 0; b < p_.batch; ++b)
      for (index_t h = 0; h < p_.heads; ++h) std::copy_n(last[b].row(p_.kv_head(h)), p_.value_dim, queries.out[b][h].row(0));
  }

 private:
  Problem p_;
};
ATTN_VARIANT(copy_v, CopyV)

}  // namespace attn
