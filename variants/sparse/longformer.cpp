#include "attn/kernels/softmax/attention.hpp"
#include "attn/kernels/softmax/rows_at.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// longformer: a sliding window, dilated in the last `dilated_heads` heads, and a few global tokens that see all and are seen by all.
//   out_i = softmax attention over {j = i + k s, |k| <= window} u G, over all keys for i in G;  j <= i when causal
//   s = `dilation` in the dilated heads, 1 in the others; G = the first `tokens` positions and those in `positions`
//   Beltagy et al. 2020, arXiv:2004.05150, section 3.1. Global rows use the same Q, K, V as the others: the paper's second set of
//   projections lies outside the mixer
//   useful flops 2 pairs (D + Dv), pairs ~ N (2 window + 1) + 2 g N; no workspace that grows with N
struct Longformer {
  using Engine = kernels::Attention;
  static constexpr bool takes_mask = true;
  struct Options {
    index_t window = 128, dilation = 2, dilated_heads = 0, tokens = 16;
    std::vector<index_t> positions;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("window", &Options::window, 0, unlimited, "keys to each side")
        .budget()
        .integer("dilation", &Options::dilation, 1, unlimited, "distance between keys in the dilated heads")
        .integer("dilated_heads", &Options::dilated_heads, 0, unlimited, "how many heads are dilated, counted from the last")
        .integer("tokens", &Options::tokens, 0, unlimited, "global tokens at the start of the sequence")
        .positions("positions", &Options::positions, "further global tokens; positions beyond the end are left out");
  }

  static VariantInfo info() {
    return {.title = "Longformer: window, dilation and global tokens",
            .formula = "softmax over a (dilated) window and the global keys; over all keys for global tokens",
            .paper = "Beltagy et al. 2020, arXiv:2004.05150, section 3.1",
            .cost_in_n = "N (2 window+1+2g) D",
            .exactness = Exactness::pattern,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Status supports(const Problem& p, const Options& o) {
    const index_t group = p.heads / p.kv_heads;
    if (std::min(o.dilated_heads, p.heads) % group == 0) return {};
    return refuse("reads keys of one distance from a kv head: dilated_heads=" + std::to_string(o.dilated_heads) +
                  " is no multiple of the " + std::to_string(group) + " heads that share one");
  }

  static Cost cost(const Problem& p, const Options& o) {
    const std::vector<bool> global = is_global(p, o);
    const auto globals = global_keys(p, o);
    double pairs = 0;  // of all heads
    for (index_t head = 0; head < p.heads; ++head) {
      const index_t step = step_of(p, o, head);
      if (head > 0 && step == step_of(p, o, head - 1)) continue;  // heads of one step are alike
      index_t alike = 0;
      for (index_t other = 0; other < p.heads; ++other) alike += step_of(p, o, other) == step;
      pairs += static_cast<double>(alike) * count_pairs(p, [&](index_t i) {
                 if (i >= 0 && global[static_cast<std::size_t>(i)]) return visible_keys(p, i, 0, p.kv_len - 1);
                 const index_t reach = reach_of(p, o, step);
                 index_t keys = visible_keys(p, i, i - reach, i + reach, step);
                 for (const std::int32_t j : globals) keys += (!p.causal || j <= i) && !in_window(o, step, i, j);
                 return keys;
               });
    }
    return softmax_cost(p, pairs / static_cast<double>(p.heads), [&](index_t head, index_t i, SeenKeys& seen) {
      const index_t step = step_of(p, o, head), reach = reach_of(p, o, step);
      if (i >= 0 && global[static_cast<std::size_t>(i)]) seen.add(i, 0, p.kv_len - 1);
      seen.add(i, i - reach, i + reach, step);
      for (const std::int32_t j : globals) seen.add(i, j, j);
    });
  }

  // The widest window, and what lies between its keys; of tokens before it, up to the last global one.
  static StateSpec state(const Problem& p, const Options& o) {
    if (!p.causal) return kept_tokens(p, p.kv_len);
    const auto globals = global_keys(p, o);
    const index_t step = o.dilated_heads > 0 ? o.dilation : 1;
    return kept_tokens(p, reach_of(p, o, step) + 1, globals.empty() ? 0 : globals.back() + 1);
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const std::vector<bool> global = is_global(p, o);
    return softmax_attention(p, in, [&](index_t head, index_t i, index_t j) {
      return in_window(o, step_of(p, o, head), i, j) || (i >= 0 && global[static_cast<std::size_t>(i)]) ||
             global[static_cast<std::size_t>(j)];
    });
  }

  Longformer(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        globals_(global_keys(p, o)),
        step_(std::min(o.dilation, std::max(p.q_len, p.kv_len))),
        by_class_(globals_),
        dense_heads_(p.heads - std::min(o.dilated_heads, p.heads)),
        window_(with_heads(p, dense_heads_), engine_options({}), workspace),
        dilated_(with_heads(p, p.heads - dense_heads_), engine_options(kernels::QueryBlocks::classes(step_)), workspace),
        own_rows_(p, globals_, workspace),
        rows_(p, {.queries = kernels::QueryBlocks::listed(1, static_cast<index_t>(globals_.size()))}, workspace) {
    std::ranges::stable_sort(by_class_, {}, [&](std::int32_t j) { return j % step_; });
  }

  auto window_keys() const {
    return [this](const kernels::QueryBlock&, kernels::KeyList& keys) {
      keys.all().band(o_.window, o_.window);
      if (!globals_.empty()) keys.listed(globals_.data(), static_cast<index_t>(globals_.size())).outside(o_.window, o_.window);
    };
  }
  // Global keys of the queries' own class may lie in the window.
  auto dilated_keys() const {
    return [this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      const index_t own = floor_mod(queries.position(0), step_), reach = reach_of(p_, o_, step_);
      keys.strided(own, step_, keys.kv_len()).band(reach, reach);
      const auto [first, last] = std::ranges::equal_range(by_class_, own, {}, [&](std::int32_t j) { return j % step_; });
      const auto list = [&](auto from, auto to) -> kernels::KeyRun& { return keys.listed(std::to_address(from), to - from); };
      if (first != by_class_.begin()) list(by_class_.begin(), first);
      if (first != last) list(first, last).outside(reach, reach);
      if (last != by_class_.end()) list(last, by_class_.end());
    };
  }
  // Windows first; the few global rows are then done again, with all keys.
  void run(const Arrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const auto of_heads = [&](index_t first, index_t count) {
      const index_t group = p_.heads / p_.kv_heads;
      kernels::EngineArrays own = a;
      own.q = a.q.part(1, first, count);
      own.k = a.k.part(1, first / group, count / group), own.v = a.v.part(1, first / group, count / group);
      own.out = a.out.part(1, first, count).f32_out();
      if (p_.mask.heads > 1) own.mask = a.more["mask"].part(1, first, count).f32();
      return own;
    };
    if (dense_heads_ > 0) window_.run(of_heads(0, dense_heads_), workspace, window_keys());
    if (dense_heads_ < p_.heads) dilated_.run(of_heads(dense_heads_, p_.heads - dense_heads_), workspace, dilated_keys());
    if (own_rows_.list(a.lengths, workspace)) rows_.run(a, workspace, own_rows_.in(workspace), kernels::all_keys);
  }
  void backward(const Arrays& a, const ParameterSet<float>&, const Gradients& g, Workspace& workspace) const {
    const auto global_rows = own_rows_.in(workspace);
    const auto back = [&](const Engine& engine, index_t first, index_t count, kernels::KeySchedule keys) {
      if (count == 0) return;
      const index_t group = p_.heads / p_.kv_heads;
      const auto of = [&](const Array& array) { return array.part(1, first, count); };
      const auto of_kv = [&](const Array& array) { return array.part(1, first / group, count / group); };
      engine.leave_out(global_rows(0, 0, 0), workspace);
      engine.backward({of(a.q).f32(), of_kv(a.k).f32(), of_kv(a.v).f32()},
                      {of(a.out).f32(), of(g.d_out).f32(), of(g.d_q).f32_out(), of_kv(g.d_k).f32_out(), of_kv(g.d_v).f32_out()},
                      workspace, keys);
    };
    back(window_, 0, dense_heads_, window_keys());
    back(dilated_, dense_heads_, p_.heads - dense_heads_, dilated_keys());
    if (globals_.empty()) return;
    kernels::EngineGradients gradients{a, g};
    gradients.add = true;
    rows_.backward(a, gradients, workspace, global_rows, kernels::all_keys);
  }

 private:
  static index_t step_of(const Problem& p, const Options& o, index_t head) {
    return head >= p.heads - o.dilated_heads ? o.dilation : 1;
  }
  // To the last key of a window; from where there are no more keys, longer ones say the same.
  static index_t reach_of(const Problem& p, const Options& o, index_t step) {
    const index_t longest = std::max(p.q_len, p.kv_len);
    return std::min(o.window, longest) * std::min(step, longest);
  }
  static bool in_window(const Options& o, index_t step, index_t i, index_t j) {
    const index_t distance = std::abs(i - j);
    return distance % step == 0 && distance / step <= o.window;
  }
  static std::vector<bool> is_global(const Problem& p, const Options& o) {
    std::vector<bool> global(static_cast<std::size_t>(p.kv_len), false);
    for (const std::int32_t j : global_keys(p, o)) global[static_cast<std::size_t>(j)] = true;
    return global;
  }
  static std::vector<std::int32_t> global_keys(const Problem& p, const Options& o) {
    std::vector<std::int32_t> keys;
    for (index_t j = 0; j < p.kv_len; ++j) {
      if (j < o.tokens || std::find(o.positions.begin(), o.positions.end(), j) != o.positions.end())
        keys.push_back(static_cast<std::int32_t>(j));
    }
    return keys;
  }

  static Problem with_heads(Problem p, index_t heads) {
    const index_t group = p.heads / p.kv_heads;
    p.kv_heads = std::max<index_t>(1, heads / group);
    p.heads = heads > 0 ? heads : 1;
    if (p.mask.heads > 1) p.mask.heads = p.heads;
    return p;
  }
  kernels::EngineOptions engine_options(const kernels::QueryBlocks& queries) const {
    const auto globals = static_cast<index_t>(globals_.size());
    return {.queries = queries, .keys_per_query = 2 * o_.window + 1 + globals, .stretches = 4 + globals};
  }

  Problem p_;
  Options o_;
  std::vector<std::int32_t> globals_;
  index_t step_;
  std::vector<std::int32_t> by_class_;  // the global keys, those of a residue modulo step_ together
  index_t dense_heads_;
  Engine window_, dilated_;
  kernels::RowsAt own_rows_;
  Engine rows_;
};
ATTN_VARIANT(longformer, Longformer)

}  // namespace attn
