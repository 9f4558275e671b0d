#include <algorithm>

#include "attn/kernels/choose/heavy_hitters.hpp"
#include "attn/variant/chosen_keys.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// h2o: heavy hitters, for decoding: a cache of few keys, the last ones and those that queries attended to most.
//   out_i = sum_{j in S_i} p_ij v_j,  p_ij = softmax_{j in S_i}(q_i.k_j / sqrt(D)),  S_i = S_(i-1) u {i}, less one key where it would hold more
//   than heavy + recent: of the keys up to i - recent that of the least a_j = sum_{t<i, j in S_t} p_tj
//   H2O 2023, FMInference/H2O. There a prompt is answered by full attention first; here by the same rule, so that a step gives what a whole
//   sequence does. Query heads that share a kv head keep the same keys, by the sums of their weights: the cache is not repeated for them.
//   useful flops 2 pairs (D + Dv), pairs ~ N (heavy + recent); a step reads the kept keys and values and their sums; workspace, but of a decode,
//   a cache for each thread
//   exact where heavy + recent is no less than the number of keys; heavy=0 is a window
// Rows come one after another, in a whole sequence too: who is kept for a row hangs on the weights of all rows before it.
struct H2o {
  struct Options {
    index_t heavy = 1024, recent = 1024;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("heavy", &Options::heavy, 0, unlimited,
                 "keys before the recent ones that are kept, those of the largest sums of weights")
        .budget()
        .integer("recent", &Options::recent, 1, unlimited, "last keys, which are always kept");
  }

  static VariantInfo info() {
    return {
        .title = "Heavy hitters",
        .formula =
            "softmax over the last `recent` keys and the `heavy` ones before that past queries gave most weight, dropped for good",
        .paper = "H2O 2023, FMInference/H2O",
        .cost_in_n = "N (heavy + recent) D",
        .fine_print =
            "Of equal sums the key that came first is kept. Prompts are answered by the same rule, not densely. Heads that share a "
            "kv "
            "head keep the same keys.",
        .exactness = Exactness::pattern,
        .causality = Causality::always,
        .cross = false,
        .grouped_heads = true,
        .row_wise = false,
        .time_exponent = 1};
  }

  static Status supports(const Problem& p, const Options&) {
    if (p.kv_len > index_t{1} << 24) return refuse("counts keys in floats: takes up to 2^24 of them");
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const index_t room = rules(p, o).room();
    Cost cost = softmax_cost(p, count_pairs(p, [&](index_t i) { return std::min(i + 1, room); }));
    if (p.pass != Pass::decode) return cost;
    const auto heads = static_cast<double>(p.batch * p.kv_heads);
    const index_t unseen = p.kv_len - room;
    cost.bytes -= heads * static_cast<double>(unseen * (bytes_of(p.kv_dtype, p.head_dim) + bytes_of(p.kv_dtype, p.value_dim)));
    cost.bytes += heads * 2 * sizeof(float) * static_cast<double>(room);  // sums, read and written
    return cost;
  }

  static StateSpec state(const Problem& p, const Options& o) {
    const kernels::HeavyRules own = rules(p, o);
    return {.tensors = {{.name = "k", .extents = {p.kv_heads, own.room(), p.head_dim}},
                        {.name = "v", .extents = {p.kv_heads, own.room(), p.value_dim}},
                        {.name = "sums", .extents = {p.kv_heads, own.room()}},
                        {.name = "position", .extents = {p.kv_heads, own.heavy}}},
            .updated = false};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const std::vector<std::int32_t> last = kernels::last_seen(p, rules(p, o), cast<float>(in.q).data(), cast<float>(in.k).data());
    return masked_attention(p, in, chosen_pairs(p, in, [&](index_t b, index_t h, index_t i, index_t j) {
                              return i <= last[static_cast<std::size_t>((b * p.kv_heads + p.kv_head(h)) * p.kv_len + j)];
                            }));
  }

  H2o(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p), rules_(rules(p, o)), hitters_(p, rules_), weights_(workspace.per_worker<float>(hitters_.weights_floats())) {
    if (p.pass == Pass::decode) return;
    cache_ = workspace.per_worker<float>(rules_.room() * (p.head_dim + p.value_dim + 1) + rules_.heavy);
  }

  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t head, int worker) {
      float* const k = workspace.of(worker, cache_).data();
      float* const v = k + rules_.room() * p_.head_dim;
      float* const sums = v + rules_.room() * p_.value_dim;
      const kernels::HeavyCache cache{{k, p_.head_dim}, {v, p_.value_dim}, sums, sums + rules_.room()};
      for (index_t t = 0; t < p_.q_len; ++t) {
        const float* const weights = take_up(a, head, t, t, cache, workspace, worker);
        hitters_.answer(t, weights, cache, row_of(a.out, head, t));
      }
    });
  }

  void absorb(const FloatArrays& tokens, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t head, int worker) {
      for (index_t i = 0; i < tokens.k.extent(2); ++i)
        take_up(tokens, head, i, state.end() + i, cache_of(state, head), workspace, worker);
    });
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t head, int worker) {
      const kernels::HeavyCache cache = cache_of(state, head);
      float* const weights = workspace.of(worker, weights_).data();
      hitters_.weigh(state.end() - 1, row_of(queries.q, head, 0), cache, weights);
      hitters_.answer(state.end() - 1, weights, cache, row_of(queries.out, head, 0));
    });
  }
  void step(const FloatArrays& token, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t head, int worker) {
      const kernels::HeavyCache cache = cache_of(state, head);
      const float* const weights = take_up(token, head, 0, state.end(), cache, workspace, worker);
      hitters_.answer(state.end(), weights, cache, row_of(token.out, head, 0));
    });
  }

 private:
  // More keys than there are say the same.
  static kernels::HeavyRules rules(const Problem& p, const Options& o) {
    const index_t recent = std::min(o.recent, p.kv_len);
    return {std::min(o.heavy, p.kv_len - recent), recent};
  }

  kernels::HeavyCache cache_of(const State& state, index_t head) const {
    const auto own = [&](const char* name, index_t size) { return state.elements(name).data() + head * size; };
    return {{own("k", rules_.room() * p_.head_dim), p_.head_dim},
            {own("v", rules_.room() * p_.value_dim), p_.value_dim},
            own("sums", rules_.room()),
            own("position", rules_.heavy)};
  }

  // Row i of the heads that share a kv head.
  kernels::Rows row_of(const View<const float, 4>& x, index_t head, index_t i) const {
    return {&x(head / p_.kv_heads, head % p_.kv_heads * hitters_.group(), i, 0), x.stride(1)};
  }
  kernels::Into row_of(const View<float, 4>& x, index_t head, index_t i) const {
    return {&x(head / p_.kv_heads, head % p_.kv_heads * hitters_.group(), i, 0), x.stride(1)};
  }

  // Row i of the tokens, at position t. The weights that its queries give.
  const float* take_up(const FloatArrays& tokens, index_t head, index_t i, index_t t, const kernels::HeavyCache& cache,
                       const Workspace& workspace, int worker) const {
    const index_t b = head / p_.kv_heads, h = head % p_.kv_heads;
    float* const weights = workspace.of(worker, weights_).data();
    hitters_.take_in(t, tokens.k[b][h].row(i), tokens.v[b][h].row(i), cache);
    hitters_.weigh(t, row_of(tokens.q, head, i), cache, weights);
    hitters_.remember(t, weights, cache);
    return weights;
  }

  Problem p_;
  kernels::HeavyRules rules_;
  kernels::HeavyHitters hitters_;
  Booking<float> weights_, cache_;
};
ATTN_VARIANT(h2o, H2o)

}  // namespace attn
