#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// longformer: a sliding window, dilated in the last `dilated_heads` heads, and a few global tokens that see all and are seen by all.
//   out_i = softmax attention over {j = i + k s, |k| <= window} u G, over all keys for i in G;  j <= i when causal
//   s = `dilation` in the dilated heads, 1 in the others; G = the first `tokens` positions and those in `positions`
//   Beltagy et al. 2020, arXiv:2004.05150, section 3.1. Global rows use the same Q, K, V as the others: the paper's second set of
//   projections lies outside the mixer
//   useful flops 2 pairs (D + Dv), pairs ~ N (2 window + 1) + 2 g N; no workspace that grows with N
struct Longformer {
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
            .cross = false,
            .time_exponent = 1};
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
                 if (global[static_cast<std::size_t>(i)]) return visible_keys(p, i, 0, p.kv_len - 1);
                 index_t keys = 1 + std::min(o.window, i / step) + (p.causal ? 0 : std::min(o.window, (p.kv_len - 1 - i) / step));
                 for (const std::int32_t j : globals) keys += (!p.causal || j <= i) && !in_window(o, step, i, j);
                 return keys;
               });
    }
    return softmax_cost(p, pairs / static_cast<double>(p.heads));
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const std::vector<bool> global = is_global(p, o);
    return softmax_attention(p, in, [&](index_t head, index_t i, index_t j) {
      return in_window(o, step_of(p, o, head), i, j) || global[static_cast<std::size_t>(i)] || global[static_cast<std::size_t>(j)];
    });
  }

  Longformer(const Problem& p, const Options& o, WorkspacePlan& workspace)
      : p_(p),
        o_(o),
        globals_(global_keys(p, o)),
        out_of_dilated_window_{o, std::min(o.dilation, p.kv_len)},
        dense_heads_(p.heads - std::min(o.dilated_heads, p.heads)),
        window_(with_heads(p, dense_heads_), {.keys_per_query = 2 * o.window + 1}, workspace),
        dilated_(with_heads(p, p.heads - dense_heads_),
                 {.queries = kernels::QueryBlocks::classes(std::min(o.dilation, p.kv_len)), .keys_per_query = 2 * o.window + 1},
                 workspace),
        rows_(p, {.queries = kernels::QueryBlocks::listed(1, static_cast<index_t>(globals_.size()))}, workspace) {}

  auto window_keys() const {
    return [this](const kernels::QueryBlock&, kernels::KeyList& keys) {
      keys.all().band(o_.window, o_.window);
      if (!globals_.empty()) keys.listed(globals_.data(), static_cast<index_t>(globals_.size())).outside(o_.window, o_.window);
    };
  }
  auto dilated_keys() const {
    return [this](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
      const index_t step = std::min(o_.dilation, p_.kv_len);
      keys.strided(queries.first % step, step, keys.kv_len()).band(o_.window * step, o_.window * step);
      if (!globals_.empty()) keys.listed(globals_.data(), static_cast<index_t>(globals_.size())).where(out_of_dilated_window_);
    };
  }
  auto global_rows() const {
    return [this](index_t, index_t, index_t) { return std::span<const std::int32_t>(globals_); };
  }
  // Windows first; the few global rows are then done again, with all keys.
  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const auto of_heads = [&](index_t first, index_t count) {
      return kernels::EngineArrays{heads_of(a.q, first, count), heads_of(a.k, first, count), heads_of(a.v, first, count),
                                   heads_of(a.out, first, count)};
    };
    if (dense_heads_ > 0) window_.run(of_heads(0, dense_heads_), workspace, window_keys());
    if (dense_heads_ < p_.heads) dilated_.run(of_heads(dense_heads_, p_.heads - dense_heads_), workspace, dilated_keys());
    if (!globals_.empty()) rows_.run({a.q, a.k, a.v, a.out}, workspace, global_rows(), kernels::all_keys);
  }
  void backward(const FloatArrays& a, const ParameterSet<float>&, const FloatGradients& g, Workspace& workspace) const {
    const auto back = [&](const kernels::SoftmaxEngine& engine, index_t first, index_t count, kernels::KeySchedule keys) {
      if (count == 0) return;
      const auto of = [&](const auto& view) { return heads_of(view, first, count); };
      engine.leave_out(globals_, workspace);
      engine.backward({of(a.q), of(a.k), of(a.v)}, {of(a.out), of(g.d_out), of(g.d_q), of(g.d_k), of(g.d_v)}, workspace, keys);
    };
    back(window_, 0, dense_heads_, window_keys());
    back(dilated_, dense_heads_, p_.heads - dense_heads_, dilated_keys());
    if (globals_.empty()) return;
    rows_.backward({a.q, a.k, a.v}, {a.out, g.d_out, g.d_q, g.d_k, g.d_v, true}, workspace, global_rows(), kernels::all_keys);
  }

 private:
  static index_t step_of(const Problem& p, const Options& o, index_t head) {
    return head >= p.heads - o.dilated_heads ? o.dilation : 1;
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
    p.heads = p.kv_heads = std::max<index_t>(1, heads);
    return p;
  }
  template <class T>
  static View<T, 4> heads_of(const View<T, 4>& view, index_t first, index_t count) {
    auto extents = view.extents();
    extents[1] = count;
    return {view.data_handle() + first * view.stride(1), extents, view.strides()};
  }
  struct OutOfDilatedWindow {
    Options o;
    index_t step;
    bool operator()(index_t row, index_t key) const { return !in_window(o, step, row, key); }
  };

  Problem p_;
  Options o_;
  std::vector<std::int32_t> globals_;
  OutOfDilatedWindow out_of_dilated_window_;
  index_t dense_heads_;
  kernels::SoftmaxEngine window_, dilated_, rows_;
};
ATTN_VARIANT(longformer, Longformer)

}  // namespace attn
