// Properties of what reads Arrays::lengths and Arrays::layout: that neither changes what a sequence comes to.
#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "attn/core/round.hpp"
#include "attn/prove/conformance_checker.hpp"

namespace attn::conformance {

namespace {

struct Batch {
  Problem p;
  std::vector<index_t> lengths;
};

// Prefill, a chunk and steps of four sequences. Heads are grouped where that is defined.
std::vector<Batch> batches(const Variant& variant) {
  std::vector<Batch> list;
  const auto add = [&](index_t queries, Pass pass, bool causal, std::vector<index_t> lengths) {
    Problem p{.batch = 4,
              .heads = 4,
              .kv_heads = 2,
              .q_len = queries,
              .kv_len = lengths.front(),
              .head_dim = 32,
              .value_dim = 24,
              .causal = causal,
              .pass = pass,
              .ragged = true};
    if (!variant.supports(p)) p.kv_heads = p.heads;
    if (variant.supports(p)) list.push_back({p, std::move(lengths)});
  };
  for (const bool causal : {false, true}) {
    add(150, Pass::forward, causal, {150, 1, 77, 41});
    add(40, Pass::forward, causal, {150, 41, 77, 53});
  }
  for (const index_t step : {1, 3}) {
    if (!variant.steps()) add(step, Pass::decode, true, {150, step, 77, 41});
  }
  return list;
}

template <class F>
void for_each_row(const Problem& p, const std::vector<index_t>& lengths, F f) {
  for (index_t b = 0; b < p.batch; ++b)
    for (index_t h = 0; h < p.kv_heads; ++h)
      for (index_t j = 0; j < lengths[static_cast<std::size_t>(b)]; ++j) f(b, h, j);
}

// K or V in pages of 16 rows that lie in no order, NaN where there is no key.
class Pages {
 public:
  static constexpr index_t rows = 16;

  Pages(const Batch& batch, const View<const float, 4>& from, std::span<const std::int32_t> table)
      : width_(from.extent(3)),
        stride_(batch.p.kv_heads * rows * width_),
        memory_(table.size() * static_cast<std::size_t>(stride_), nan),
        array_(
            View<const float, 4>(memory_.data(), {batch.p.batch, batch.p.kv_heads, rows, width_}, {0, rows * width_, width_, 1})) {
    const index_t pages = std::ssize(table) / batch.p.batch;
    for_each_row(batch.p, batch.lengths, [&](index_t b, index_t h, index_t j) {
      const index_t page = table[static_cast<std::size_t>(b * pages + j / rows)];
      std::copy_n(from[b][h].row(j), width_, memory_.data() + page * stride_ + (h * rows + j % rows) * width_);
    });
  }
  const Array& array() const { return array_; }
  index_t stride() const { return stride_; }

 private:
  index_t width_, stride_;
  std::vector<float> memory_;
  Array array_;
};

// NaN wherever a sequence has no key, and no query.
void blank_padding(const Batch& batch, const Case& c) {
  for (index_t b = 0; b < batch.p.batch; ++b) {
    const index_t length = batch.lengths[static_cast<std::size_t>(b)], queries = batch.p.sequence(length).q_len;
    const auto blank = [&](const View<float, 4>& view, index_t first) {
      for (index_t h = 0; h < view.extent(1); ++h)
        for (index_t i = first; i < view.extent(2); ++i) std::fill_n(view[b][h].row(i), view.extent(3), nan);
    };
    blank(c.q, queries);
    blank(c.k, length);
    blank(c.v, length);
  }
}

}  // namespace

void Checker::ragged() {
  if (!variant_.reads_layouts()) return none("takes sequences of one length");
  const Arena arena(options_.threads);
  for (const Batch& batch : batches(variant_)) {
    const Problem& p = batch.p;
    begin(p);
    const Case c = case_of(p);
    blank_padding(batch, c);
    const ParameterSet<float> parameters = parameters_of(p);
    const auto run = [&](const Problem& problem, const Arrays& arrays) {
      Planned planned(variant_, problem, options_.threads);
      planned.equip(parameters);
      planned.run(arena, arrays);
    };
    Arrays all = c.arrays();
    all.lengths = batch.lengths;
    c.fill_output(0);
    for (index_t b = 0; b < p.batch; ++b) {
      const index_t queries = p.sequence(batch.lengths[static_cast<std::size_t>(b)]).q_len;
      for (index_t h = 0; h < p.heads; ++h)
        for (index_t i = queries; i < p.q_len; ++i) std::fill_n(c.out[b][h].row(i), p.value_dim, nan);
    }
    run(p, all);
    for (index_t b = 0; b < p.batch; ++b) {
      const index_t length = batch.lengths[static_cast<std::size_t>(b)];
      const Problem own = p.sequence(length);
      const Buffer memory = output_buffer(own);
      const View<float, 4> alone = output_view(own, memory);
      std::fill_n(alone.data_handle(), alone.size(), 0.0f);
      const auto part = [&](const Array& array, index_t rows) { return array.part(0, b, 1).first(2, rows); };
      run(own, {.q = part(all.q, own.q_len), .k = part(all.k, length), .v = part(all.v, length), .out = alone});
      for (index_t h = 0; h < p.heads; ++h) {
        for (index_t i = 0; i < p.q_len; ++i) {
          const std::span<const float> found(c.out[b][h].row(i), static_cast<std::size_t>(p.value_dim));
          const bool right = i < own.q_len ? same_bits(found, {alone[0][h].row(i), found.size()})
                                           : std::ranges::all_of(found, [](float x) { return x == 0; });
          if (!right)
            fail(p, "sequence " + std::to_string(b) + " of length " + std::to_string(length) + ", row " + std::to_string(i));
        }
      }
    }
  }
}

void Checker::pages() {
  if (!variant_.reads_layouts()) return none("reads no pages");
  const Arena arena(options_.threads);
  for (const Batch& batch : batches(variant_)) {
    const Problem& p = batch.p;
    begin(p);
    const Case c = case_of(p);
    blank_padding(batch, c);
    const Planned planned = plan(p, options_.threads);
    Arrays arrays = c.arrays();
    arrays.lengths = batch.lengths;
    const auto run = [&] {
      c.fill_output(0);
      planned.run(arena, arrays);
      return c.output();
    };
    const std::vector<float> plain = run();
    const index_t pages = ceil_div(p.kv_len, Pages::rows);
    std::vector<std::int32_t> table(static_cast<std::size_t>(p.batch * pages));
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>((i * 7 + 3) % table.size());
    const Pages k(batch, c.k, table), v(batch, c.v, table);
    arrays.k = k.array();
    arrays.v = v.array();
    arrays.layout = {.pages = table.data(),
                     .pages_stride = pages,
                     .page_rows = Pages::rows,
                     .k_page_stride = k.stride(),
                     .v_page_stride = v.stride()};
    if (!same_bits(plain, run())) fail(p, "keys in pages give other bits than keys in a row");
  }
}

}  // namespace attn::conformance
