#include <algorithm>
#include <optional>

#include "attn/exec/choice_time.hpp"
#include "attn/kernels/choose/page_bounds.hpp"
#include "attn/kernels/rows/rows_engine.hpp"
#include "attn/variant/chosen_keys.hpp"
#include "attn/variant/variant.hpp"

namespace attn {

// quest: for decoding: each query sees its own page of keys and the past pages in which some key may fit it best.
//   out_i = softmax attention over {j <= i in page floor(i / page)} u {j in the keep - 1 past pages u of the largest bound}
//   bound: sum_c max(q_ic most_uc, q_ic least_uc) of the largest and least numbers of each channel in page u; no key of u has a larger product
//   Tang et al. 2024, arXiv:2406.10774, mit-han-lab/Quest; each query head chooses its own pages. There a prompt is answered by full attention,
//   here by the same rule, so that a step gives what a whole sequence does.
//   useful flops 2 pairs (D + Dv), pairs ~ N keep page; bounds, 4 N M D / page, are not counted; a step reads 8 M D / page bytes of bounds and the
//   keys and values of its pages; workspace lists of 64 queries and bounds
//   exact where keep is no less than the number of pages
struct Quest {
  struct Options {
    index_t page = 16, keep = 128;
  };
  static OptionTable<Options> options() {
    return OptionTable<Options>()
        .integer("page", &Options::page, 1, unlimited, "keys of a page")
        .integer("keep", &Options::keep, 1, 65536, "pages that a query sees, its own included")
        .budget();
  }

  static VariantInfo info() {
    return {.title = "Query-aware pages",
            .formula = "softmax over the own page and the keep - 1 past pages of the largest sum_c max(q_c most_c, q_c least_c)",
            .paper = "Tang et al. 2024, arXiv:2406.10774",
            .cost_in_n = "N keep page D + N^2 / page D",
            .fine_print = "Equal bounds go to the page that comes first. Prompts are answered by the same rule, not densely.",
            .exactness = Exactness::pattern,
            .causality = Causality::always,
            .grouped_heads = true,
            .time_exponent = 1};
  }

  static Cost cost(const Problem& p, const Options& given) {
    const Options o = within(p, given);
    const auto keys = [&](index_t i) { return i < 0 ? 0 : i % o.page + 1 + o.page * std::min(o.keep - 1, i / o.page); };
    Cost cost = softmax_cost(p, count_pairs(p, keys));
    if (p.self_attention()) return cost;
    // Of keys and values those that one query of a head sees at least.
    const index_t seen = std::min(p.kv_len, std::max<index_t>(0, keys(p.query_position(p.q_len - 1))));
    const auto heads = static_cast<double>(p.batch * p.kv_heads);
    cost.bytes -=
        heads * static_cast<double>((p.kv_len - seen) * (bytes_of(p.kv_dtype, p.head_dim) + bytes_of(p.kv_dtype, p.value_dim)));
    if (p.pass == Pass::decode) cost.bytes += heads * 8 * static_cast<double>(ceil_div(p.kv_len, o.page) * p.head_dim);
    return cost;
  }

  static StateSpec state(const Problem& p, const Options& given) {
    const Options o = within(p, given);
    return {.tensors = {{.name = "k", .extents = {p.kv_heads, p.kv_len, p.head_dim}},
                        {.name = "v", .extents = {p.kv_heads, p.kv_len, p.value_dim}},
                        {.name = "bounds", .extents = {p.kv_heads, 2 * p.head_dim, ceil_div(p.kv_len, o.page)}}},
            .updated = false};
  }

  template <class T>
  static Tensor<T> definition(const Problem& p, const Options& given, const Values<T>& in, const ParameterSet<T>&) {
    const Options o = within(p, given);
    const index_t rows = std::ssize(in.position), size = o.keep + 1;
    const std::vector<std::int32_t> lists =
        kernels::chosen_pages(p, o.page, o.keep - 1, cast<float>(in.q).data(), in.position, cast<float>(in.k).data());
    return masked_attention(p, in, chosen_pairs(p, in, [&](index_t b, index_t h, index_t row, index_t j) {
                              const auto list = lists.begin() + ((b * p.heads + h) * rows + row) * size;
                              return std::find(list + 1, list + 1 + *list, j / o.page) != list + 1 + *list;
                            }));
  }

  Quest(const Problem& p, const Options& given, WorkspacePlan& workspace)
      : p_(p), o_(within(p, given)), pages_(p, o_.page, o_.keep - 1, workspace) {
    Problem some = p;
    some.q_len = std::min(p.q_len, most_rows);
    const kernels::RowsOptions options{
        .keys = std::min(p.kv_len, o_.keep * o_.page), .spans = o_.keep, .apart = true, .heads_apart = true};
    engine_.emplace(some, options, workspace);
    if (p.q_len > most_rows && p.q_len % most_rows != 0) {
      some.q_len = p.q_len % most_rows;
      last_engine_.emplace(some, options, workspace);
    }
    lists_ = workspace.shared<std::int32_t>(p.batch * p.heads * most_rows * pages_.list_size());
    lengths_ = workspace.shared<index_t>(p.batch);
    if (p.pass != Pass::decode) bounds_ = workspace.shared<float>(p.batch * p.kv_heads * pages_.floats());
  }

  void run(const FloatArrays& a, const ParameterSet<float>&, Workspace& workspace) const {
    const float* const bounds = make_bounds(a, workspace);
    for (index_t first = 0; first < p_.q_len; first += most_rows) attend(a, first, p_.query_position(first), bounds, workspace);
  }

  void absorb(const FloatArrays& tokens, const ParameterSet<float>&, const State& state, Workspace&) const {
    keep_rows(tokens.k, state, "k");
    keep_rows(tokens.v, state, "v");
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t head, int) {
      const auto k = tokens.k[head / p_.kv_heads][head % p_.kv_heads];
      pages_.take_in(state.end(), k.extent(0), {k.row(0), k.stride(0)}, state.elements("bounds").data() + head * pages_.floats());
    });
  }
  void answer(const FloatArrays& queries, const ParameterSet<float>&, const State& state, Workspace& workspace) const {
    FloatArrays all = queries;
    all.k = state["k"].f32<4>(), all.v = state["v"].f32<4>();
    attend(all, 0, state.end() - 1, state.elements("bounds").data(), workspace);
  }

 private:
  static constexpr index_t most_rows = 64;  // with a list of pages each at a time

  // Longer pages, and more of them, than there are say the same.
  static Options within(const Problem& p, const Options& o) {
    const index_t page = std::min(o.page, p.kv_len);
    return {.page = page, .keep = std::min(o.keep, ceil_div(p.kv_len, page))};
  }

  const float* make_bounds(const FloatArrays& a, const Workspace& workspace) const {
    const ChoiceTime choosing;
    float* const bounds = workspace.shared(bounds_).data();
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t head, int) {
      const auto k = a.k[head / p_.kv_heads][head % p_.kv_heads];
      pages_.take_in(0, p_.kv_len, {k.row(0), k.stride(0)}, bounds + head * pages_.floats());
    });
    return bounds;
  }

  // Queries from row `first` on, of which that one stands at `position`.
  void attend(const FloatArrays& a, index_t first, index_t position, const float* bounds, const Workspace& workspace) const {
    const index_t count = std::min(most_rows, p_.q_len - first);
    std::int32_t* const lists = workspace.shared(lists_).data();
    pages_.choose({a.q, first, count, position}, bounds, workspace, lists);
    const auto rows = [&](const auto& x) {
      auto extents = x.extents();
      extents[2] = count;
      return std::remove_cvref_t<decltype(x)>(&x(0, 0, first, 0), extents, x.strides());
    };
    const std::span<index_t> lengths = workspace.shared(lengths_);
    std::fill(lengths.begin(), lengths.end(), std::max<index_t>(0, position + count));
    const kernels::RowsEngine& engine = count == std::min(p_.q_len, most_rows) ? *engine_ : *last_engine_;
    engine.run({.q = rows(a.q), .k = a.k, .v = a.v, .out = rows(a.out)}, lengths, workspace,
               [&](const kernels::QueryBlock& queries, kernels::KeyList& keys) {
                 const std::int32_t* const list =
                     lists + ((queries.batch * p_.heads + queries.head) * count + queries.row(0)) * pages_.list_size();
                 keys.listed_blocks(list + 1, list[0], o_.page);
               });
  }

  Problem p_;
  Options o_;
  kernels::PageBounds pages_;
  std::optional<kernels::RowsEngine> engine_, last_engine_;
  Booking<std::int32_t> lists_;
  Booking<index_t> lengths_;
  Booking<float> bounds_;
};
ATTN_VARIANT(quest, Quest)

}  // namespace attn
