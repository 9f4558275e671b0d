#include <algorithm>
#include <optional>

#include "attn/exec/choice_time.hpp"
#include "attn/kernels/choose/prompt_keys.hpp"
#include "attn/kernels/rows/rows_engine.hpp"
#include "attn/kernels/softmax/engine.hpp"
#include "attn/variant/chosen_keys.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// snapkv: for decoding: of a prompt's keys those are kept that its last queries attend to most, once and for all.
//   i < P: full attention.  i >= P: out_i = softmax attention over {j < P - window in A} u {P - window <= j <= i},  P tokens of a prompt
//   A: the `keep` keys of the largest a_j, the mean over `pool` neighbours of the weights that the queries P - window .. P - 1 give key j
//   SnapKV 2024: weights of the last 32 queries, means of 5, 2048 keys in all. Query heads that share a kv head keep the same keys, by the sums
//   of their weights: the cache is not repeated for them.
//   useful flops 2 pairs (D + Dv); choosing, 2 window P D, is not counted; a step reads the kept keys and values and those since; workspace a
//   turned copy of a head's keys for each thread. The state has room for the prompt, which is there until it ends
//   exact where keep is no less than P - window
struct SnapKv {
  struct Options {
    index_t keep = 2016, window = 32, pool = 5, prompt = 0;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("keep", &Options::keep, 0, unlimited, "keys before the window that are kept")
        .budget()
        .integer("window", &Options::window, 1, 4096, "last queries of the prompt, which choose, and whose keys are kept too")
        .integer("pool", &Options::pool, 1, 4095, "odd: keys whose sums are averaged, so that neighbours stay together")
        .integer("prompt", &Options::prompt, 0, unlimited, "tokens of the prompt; 0: all but the last `window`");
  }

  static VariantInfo info() {
    return {.title = "Keys of a prompt, snapped once",
            .formula =
                "past a prompt, softmax over the `keep` keys that its last queries gave most weight, its window, and what follows",
            .paper = "SnapKV 2024",
            .cost_in_n = "P^2 D + (N - P) (keep + window + N - P) D",
            .fine_print =
                "Rows of the prompt are full attention. Equal means go to the key that comes first. Heads that share a kv head "
                "keep the "
                "same keys.",
            .exactness = Exactness::pattern,
            .causality = Causality::always,
            .cross = false,
            .grouped_heads = true,
            .row_wise = false};
  }

  static Status supports(const Problem&, const Options& o) {
    if (o.pool % 2 == 0)
      return refuse("averages a key with as many on either side: needs an odd pool, not " + std::to_string(o.pool));
    return {};
  }

  static Cost cost(const Problem& p, const Options& o) {
    const kernels::PromptRules own = rules(p, o);
    const index_t dropped = own.before() - own.kept();
    Cost cost = softmax_cost(p, count_pairs(p, [&](index_t i) { return i + 1 - (i < own.prompt ? 0 : dropped); }));
    if (p.pass == Pass::decode && own.prompt < p.kv_len) {
      cost.bytes -= static_cast<double>(p.batch * p.kv_heads * dropped *
                                        (bytes_of(p.kv_dtype, p.head_dim) + bytes_of(p.kv_dtype, p.value_dim)));
    }
    return cost;
  }

  static StateSpec state(const Problem& p, const Options& o) {
    const kernels::PromptRules own = rules(p, o);
    const index_t rows = std::max(own.prompt, own.kept() + p.kv_len - own.before());
    return {.tensors = {{.name = "k", .extents = {p.kv_heads, rows, p.head_dim}},
                        {.name = "v", .extents = {p.kv_heads, rows, p.value_dim}},
                        {.name = "q", .extents = {p.heads, own.window, p.head_dim}}},
            .updated = false};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& o, const Values<T>& in, const ParameterSet<T>&) {
    const kernels::PromptRules own = rules(p, o);
    const std::vector<bool> kept = kernels::prompt_keys(p, own, cast<float>(in.q).data(), cast<float>(in.k).data());
    return masked_attention(p, in, chosen_pairs(p, in, [&](index_t b, index_t h, index_t i, index_t j) {
                              return i < own.prompt || j >= own.before() ||
                                     kept[static_cast<std::size_t>((b * p.kv_heads + p.kv_head(h)) * own.prompt + j)];
                            }));
  }

  SnapKv(const Problem& p, const Options& o, WorkspacePlan& workspace) : p_(p), rules_(rules(p, o)), choice_(p, rules_, workspace) {
    if (p.pass == Pass::decode) {
      list_ = workspace.per_worker<std::int32_t>(rules_.kept());
      rows_.emplace(p, kernels::RowsOptions{}, workspace);
      lengths_ = workspace.shared<index_t>(p.batch);
      return;
    }
    list_ = workspace.shared<std::int32_t>(p.batch * p.kv_heads * rules_.kept());
    Problem part = p;
    part.q_len = part.kv_len = rules_.prompt;
    prompt_.emplace(part, kernels::EngineOptions{}, workspace);
    if (rules_.prompt == p.kv_len) return;
    part = p;
    part.q_len = p.kv_len - rules_.prompt;
    rest_.emplace(part, kernels::EngineOptions{}, workspace);
  }

  void choose(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    if (!rest_) return;
    const ChoiceTime choosing;
    std::int32_t* const lists = workspace.shared(list_).data();
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t head, int worker) {
      const index_t b = head / p_.kv_heads, h = head % p_.kv_heads;
      const auto k = a.k[b][h];
      choice_.choose([&](index_t g, index_t r) { return &a.q(b, h * group() + g, rules_.before() + r, 0); },
                     {k.row(0), k.stride(0)}, workspace, worker, lists + head * rules_.kept());
    });
  }
  void run(const FloatArrays& a, const ParameterSet<float>& parameters, Workspace& workspace) const {
    const index_t end = rules_.prompt;
    prompt_->run({rows(a.q, 0, end), rows(a.k, 0, end), rows(a.v, 0, end), rows(a.out, 0, end)}, workspace, kernels::all_keys);
    if (!rest_) return;
    choose(a, parameters, workspace);
    const std::int32_t* const lists = workspace.shared(list_).data();
    rest_->run({rows(a.q, end, p_.q_len), a.k, a.v, rows(a.out, end, p_.q_len)}, workspace,
               [&](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
                 const index_t head = queries.batch * p_.kv_heads + queries.kv_head;
                 if (rules_.kept() > 0) keys.listed(lists + head * rules_.kept(), rules_.kept());
                 keys.range(rules_.before(), p_.kv_len - rules_.before());
               });
  }

  void absorb(const FloatArrays& tokens, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t head, int worker) {
      for (index_t i = 0; i < tokens.k.extent(2); ++i) {
        if (state.end() + i == rules_.prompt) drop(state, head, workspace, worker);
        keep(tokens, i, state.end() + i, state, head);
      }
    });
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    const std::span<index_t> lengths = workspace.shared(lengths_);
    std::fill(lengths.begin(), lengths.end(), row_of(state.end() - 1) + 1);
    rows_->run({.q = queries.q, .k = state["k"].f32<4>(), .v = state["v"].f32<4>(), .out = queries.out}, lengths, workspace);
  }

 private:
  // A longer prompt, and more keys, than there are say the same.
  static kernels::PromptRules rules(const Problem& p, const Options& o) {
    const index_t asked = o.prompt > 0 ? o.prompt : p.kv_len > o.window ? p.kv_len - o.window : p.kv_len;
    const index_t prompt = std::min(asked, p.kv_len);
    return {prompt, std::min(o.window, prompt), o.pool, std::min(o.keep, prompt)};
  }
  index_t group() const { return p_.heads / p_.kv_heads; }

  template <class T>
  static View<T, 4> rows(const View<T, 4>& x, index_t first, index_t end) {
    auto extents = x.extents();
    extents[2] = end - first;
    return {&x(0, 0, first, 0), extents, x.strides()};
  }

  // Where the token at position t is kept.
  index_t row_of(index_t t) const { return t < rules_.prompt ? t : rules_.kept() + t - rules_.before(); }
  float* row(const State& state, const char* name, index_t head, index_t at) const {
    const auto all = state[name].f32_out();
    return &all(head / p_.kv_heads, head % p_.kv_heads, at, 0);
  }

  void keep(const FloatArrays& tokens, index_t i, index_t t, const State& state, index_t head) const {
    const index_t b = head / p_.kv_heads, h = head % p_.kv_heads, r = t - rules_.before();
    std::copy_n(tokens.k[b][h].row(i), p_.head_dim, row(state, "k", head, row_of(t)));
    std::copy_n(tokens.v[b][h].row(i), p_.value_dim, row(state, "v", head, row_of(t)));
    if (r < 0 || t >= rules_.prompt) return;
    const auto q = state["q"].f32_out()[b];
    for (index_t g = 0; g < group(); ++g) std::copy_n(tokens.q[b][h * group() + g].row(i), p_.head_dim, q[h * group() + g].row(r));
  }

  // At the end of the prompt: what is kept moves up.
  void drop(const State& state, index_t head, const Workspace& workspace, int worker) const {
    const auto q = state["q"].f32_out()[head / p_.kv_heads];
    std::int32_t* const list = workspace.of(worker, list_).data();
    choice_.choose([&](index_t g, index_t r) { return q[head % p_.kv_heads * group() + g].row(r); },
                   {row(state, "k", head, 0), p_.head_dim}, workspace, worker, list);
    const auto move = [&](index_t from, index_t to) {
      if (from == to) return;
      std::copy_n(row(state, "k", head, from), p_.head_dim, row(state, "k", head, to));
      std::copy_n(row(state, "v", head, from), p_.value_dim, row(state, "v", head, to));
    };
    for (index_t i = 0; i < rules_.kept(); ++i) move(list[i], i);
    for (index_t r = 0; r < rules_.window; ++r) move(rules_.before() + r, rules_.kept() + r);
  }

  Problem p_;
  kernels::PromptRules rules_;
  kernels::PromptKeys choice_;
  std::optional<kernels::SoftmaxEngine> prompt_, rest_;
  std::optional<kernels::RowsEngine> rows_;
  Booking<std::int32_t> list_;
  Booking<index_t> lengths_;
};
ATTN_VARIANT(snapkv, SnapKv)

}  // namespace attn
