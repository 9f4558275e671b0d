#include "attn/kernels/linear/linear_attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "attn/core/round.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/machine/widen.hpp"

namespace attn::kernels {

namespace {

constexpr float lowest = -std::numeric_limits<float>::infinity();

// A causal panel costs panel * (features + value_dim) for its own triangle and a pass over the state for each panel. At 16 the
// triangle is one tile and all that a panel touches stays in L1 beside the state of 64 features: 0.52 of peak, 0.49 at 32,
// 0.47 at 24 or 48. 64 where there are no triangles.
constexpr index_t causal_panel = 16;

}  // namespace

struct LinearAttention::Scratch {
  float* query;       // [panel, features + panel]: the weights of a panel's keys stand behind its queries
  float* key;         // [panel, features]
  float* transposed;  // [features, panel]: the keys
  float* scale;       // [panel]
  float* total;       // [features + panel]: the sum of some keys, and ones
  float* peak;        // [panel]
  float* gate;        // [panel]
  float* rest;        // [panel]: 1 - gate
  float* kept;        // [panel]: products of gates
};

LinearAttention::LinearAttention(const Problem& p, index_t features, Denominators denominators, WorkspacePlan& workspace,
                                 bool peaks)
    : p_(p),
      features_(features),
      stride_(round_up(features, 16)),
      panel_(p.causal ? causal_panel : max_panel),
      denominators_(denominators),
      peaks_(peaks) {
  const index_t heads = p.batch * p.kv_heads, threads = workspace.threads();
  if (threads > 1 && heads < 2 * threads) {
    const index_t panels = std::max<index_t>(1, p.kv_len / (16 * panel_));
    segments_ = std::clamp<index_t>((4 * threads + heads - 1) / heads, 1, panels);
  }
  scratch_ = workspace.per_worker<float>(sums_size() + (3 * panel_ + 1) * stride_ + panel_ * panel_ + 6 * panel_);
  states_ = workspace.shared<float>(segments_ > 1 ? heads * segments_ * sums_size() : 0);
  if (p.dtype != DType::f32 || p.kv_dtype != DType::f32)
    widened_ = workspace.per_worker<float>(panel_ * (2 * p.head_dim + p.value_dim));
  if (p.pass == Pass::decode) token_ = workspace.per_worker<float>(panel_ * (2 * stride_ + 16));
}

class LinearAttention::Run {
 public:
  Run(const LinearAttention& plan, const Views& x, const Workspace& workspace, FeatureMap query, FeatureMap key,
      const GateMap* gate)
      : plan_(plan), p_(plan.p_), x_(x), workspace_(workspace), query_(query), key_(key), gate_(gate) {}

  // All of the tokens are those of the problem.
  void all() const {
    if (plan_.segments_ > 1) {
      p_.causal ? causal_by_segments() : bidirectional_by_segments();
    } else if (p_.causal) {
      parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) {
        const Sums state = own_state(worker);
        begin(task / p_.heads, p_.kv_head(task % p_.heads), state);
        causal(task / p_.heads, task % p_.heads, 0, p_.kv_len, state, worker);
      });
    } else {
      const index_t group = p_.heads / p_.kv_heads;
      parallel_tasks(p_.batch * p_.kv_heads, [&](index_t task, int worker) {
        const index_t batch = task / p_.kv_heads, head = task % p_.kv_heads;
        const Sums state = own_state(worker);
        clear(state);
        absorb(batch, head, 0, p_.kv_len, 0, state, worker);
        for (index_t h = head * group; h < (head + 1) * group; ++h)
          answer(batch, h, 0, p_.q_len, p_.query_position(0), state, worker);
      });
    }
  }

  // Verbs of a state: x_ holds the new tokens.
  void absorb_into(const State& state) const {
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t task, int worker) {
      const index_t batch = task / p_.kv_heads, head = task % p_.kv_heads;
      absorb(batch, head, 0, x_.k.extent(2), state.end(), sums_of(state, batch, head), worker);
    });
  }
  void answer_from(const State& state) const {
    const index_t group = p_.heads / p_.kv_heads, rows = x_.q.extent(2);
    parallel_tasks(p_.batch * p_.kv_heads, [&](index_t task, int worker) {
      const index_t batch = task / p_.kv_heads, head = task % p_.kv_heads;
      for (index_t h = head * group; h < (head + 1) * group; ++h)
        answer(batch, h, 0, rows, state.end() - rows, sums_of(state, batch, head), worker);
    });
  }

 private:
  // Three phases, each in parallel and in an order that does not depend on who runs what: the state of each segment, their
  // sum, the answers.
  void bidirectional_by_segments() const {
    const index_t segments = plan_.segments_, heads = p_.batch * p_.kv_heads;
    parallel_tasks(heads * segments, [&](index_t task, int worker) {
      const Sums state = segment_state(task);
      const index_t head = task / segments, segment = task % segments;
      clear(state);
      absorb(head / p_.kv_heads, head % p_.kv_heads, bound(p_.kv_len, segment), bound(p_.kv_len, segment + 1),
             bound(p_.kv_len, segment), state, worker);
    });
    parallel_tasks(heads, [&](index_t head, int) {
      for (index_t s = 1; s < segments; ++s) merge(segment_state(head * segments + s), segment_state(head * segments));
    });
    parallel_tasks(p_.batch * p_.heads * segments, [&](index_t task, int worker) {
      const index_t head = task / segments, segment = task % segments;
      const index_t batch = head / p_.heads, h = head % p_.heads;
      answer(batch, h, bound(p_.q_len, segment), bound(p_.q_len, segment + 1), p_.query_position(bound(p_.q_len, segment)),
             segment_state((batch * p_.kv_heads + p_.kv_head(h)) * segments), worker);
    });
  }

  // The same with prefix sums: segment s starts from the keys before it.
  void causal_by_segments() const {
    const index_t segments = plan_.segments_, heads = p_.batch * p_.kv_heads;
    parallel_tasks(heads * segments, [&](index_t task, int worker) {
      const Sums state = segment_state(task);
      const index_t head = task / segments, segment = task % segments;
      if (segment == 0) return begin(head / p_.kv_heads, head % p_.kv_heads, state);
      clear(state);
      absorb(head / p_.kv_heads, head % p_.kv_heads, bound(p_.kv_len, segment - 1), bound(p_.kv_len, segment),
             bound(p_.kv_len, segment - 1), state, worker);
    });
    parallel_tasks(heads, [&](index_t head, int) {
      for (index_t s = 1; s < segments; ++s) merge(segment_state(head * segments + s - 1), segment_state(head * segments + s));
    });
    parallel_tasks(p_.batch * p_.heads * segments, [&](index_t task, int worker) {
      const index_t head = task / segments, segment = task % segments;
      const index_t batch = head / p_.heads, h = head % p_.heads;
      const Sums from = segment_state((batch * p_.kv_heads + p_.kv_head(h)) * segments + segment);
      const Sums state = own_state(worker);
      std::copy_n(from.sums, plan_.sums_size(), state.sums);
      causal(batch, h, bound(p_.kv_len, segment), bound(p_.kv_len, segment + 1), state, worker);
    });
  }

  // Segments end on whole panels.
  index_t bound(index_t tokens, index_t segment) const {
    const index_t panels = (tokens + plan_.panel_ - 1) / plan_.panel_;
    return std::min(tokens, panels * segment / plan_.segments_ * plan_.panel_);
  }

  // Keys first .. end - 1, the first of them at `position`, into the state.
  void absorb(index_t batch, index_t head, index_t first, index_t end, index_t position, const Sums& state, int worker) const {
    const Scratch s = scratch(worker);
    for (index_t t = first; t < end; t += plan_.panel_) {
      const index_t count = std::min(plan_.panel_, end - t);
      std::fill_n(s.peak, count, lowest);
      const Rows keys = key_rows(batch, head, t, count, worker);
      key_({batch, head, position + t - first, count, keys, {s.key, plan_.stride_}, s.peak, nullptr, worker});
      if (plan_.peaks_) *state.peak = std::max(*state.peak, *std::max_element(s.peak, s.peak + count));
      if (gate_ != nullptr) {
        gates(batch, head, position + t - first, keys, count, s);
        forget(count, state, s);
      }
      add_column_sums(count, plan_.features_, {s.key, plan_.stride_}, state.total);
      gemm(plan_.features_, p_.value_dim, count, {s.key, 1, plan_.stride_}, value_rows(batch, head, t, count, worker), sums(state),
           {.add = true,
            .fetch = {next(x_.k, x_.stored_k, batch, head, t + count, end), next(x_.v, x_.stored_v, batch, head, t + count, end)}});
    }
  }

  // Queries first .. end - 1, the first of them at `position`, from the state of all keys.
  void answer(index_t batch, index_t head, index_t first, index_t end, index_t position, const Sums& state, int worker) const {
    const Scratch s = scratch(worker);
    for (index_t i = first; i < end; i += plan_.panel_) {
      const index_t count = std::min(plan_.panel_, end - i);
      if (plan_.peaks_) std::fill_n(s.peak, count, *state.peak);
      query_({batch,
              head,
              position + i - first,
              count,
              query_rows(batch, head, i, count, worker),
              {s.query, query_stride()},
              s.peak,
              state.total,
              worker});
      if (plan_.denominators_ != nullptr) {
        row_dots(count, plan_.features_, {s.query, query_stride()}, state.total, s.scale);
        plan_.denominators_(count, s.scale);
      }
      gemm(count, p_.value_dim, plan_.features_, {s.query, query_stride()}, {state.sums, p_.value_dim}, output(batch, head, i),
           {.row_scale = guarded(s.scale),
            .fetch = {next(x_.q, x_.stored_q, batch, head, i + count, end), next(x_.out, {}, batch, head, i + count, end)}});
    }
  }

  // Keys first .. end - 1, and the queries that stand among them, from the state of the keys before `first`.
  void causal(index_t batch, index_t head, index_t first, index_t end, const Sums& state, int worker) const {
    const Scratch s = scratch(worker);
    const index_t kv_head = p_.kv_head(head), offset = p_.query_position(0);
    if (first == 0) {
      for (index_t i = 0; i < std::min(-offset, p_.q_len); ++i) std::fill_n(output(batch, head, i).data, p_.value_dim, 0.0f);
    }
    for (index_t t = first; t < end; t += plan_.panel_) {
      const index_t count = std::min(plan_.panel_, end - t);
      const Rows keys = key_rows(batch, kv_head, t, count, worker), values = value_rows(batch, kv_head, t, count, worker);
      key_({batch, kv_head, t, count, keys, {s.key, plan_.stride_}, s.peak, nullptr, worker});
      if (plan_.peaks_) {
        s.peak[0] = std::max(s.peak[0], *state.peak);
        std::partial_sum(s.peak, s.peak + count, s.peak, [](float a, float b) { return std::max(a, b); });
        *state.peak = s.peak[count - 1];
      }
      if (gate_ != nullptr) gates(batch, kv_head, t, keys, count, s);
      // Query row + r stands at position t + skip + r, the last one at the panel's end, and the panels before the first query
      // have none: the state holds the keys before t, the triangle of weights those of the panel. The state is read and raised
      // at a stroke, while it is in L1.
      const index_t row = std::max<index_t>(0, t - offset), skip = row + offset - t;
      const index_t rows = std::max<index_t>(0, t + count - offset) - row;
      if (rows > 0) {
        query_({batch,
                head,
                t + skip,
                rows,
                query_rows(batch, head, row, rows, worker),
                {s.query, query_stride()},
                s.peak + skip,
                nullptr,
                worker});
        weigh(rows, count, skip, s);
        if (gate_ != nullptr) gate_weights(count, skip, s);
        causal_denominators(rows, count, s, state);
        // [queries, weights] times the state above the values.
        gemm(rows, p_.value_dim, plan_.features_, {s.query, query_stride()}, {state.sums, p_.value_dim}, output(batch, head, row),
             {.row_scale = guarded(s.scale),
              .below = values,
              .below_k = count,
              .lower = Lower::left,
              .diagonal = plan_.features_ + skip,
              .fetch = {next(x_.q, x_.stored_q, batch, head, row + rows, p_.q_len),
                        next(x_.out, {}, batch, head, row + rows, p_.q_len)}});
      }
      if (gate_ != nullptr) forget(count, state, s);
      add_column_sums(count, plan_.features_, {s.key, plan_.stride_}, state.total);
      gemm(plan_.features_, p_.value_dim, count, {s.key, 1, plan_.stride_}, values, sums(state),
           {.add = true,
            .fetch = {next(x_.k, x_.stored_k, batch, kv_head, t + count, end),
                      next(x_.v, x_.stored_v, batch, kv_head, t + count, end)}});
    }
  }

  void weigh(index_t rows, index_t count, index_t skip, const Scratch& s) const {
    transpose(count, plan_.features_, {s.key, plan_.stride_}, {s.transposed, plan_.panel_});
    gemm(rows, count, plan_.features_, {s.query, query_stride()}, {s.transposed, plan_.panel_}, {weights(s), query_stride()},
         {.lower = Lower::result, .diagonal = skip});
  }

  // The sum of row i is phi_q(q_i) . z and the weights behind phi_q(q_i), each once.
  void causal_denominators(index_t rows, index_t count, const Scratch& s, const Sums& state) const {
    if (plan_.denominators_ == nullptr) return;
    std::copy_n(state.total, plan_.features_, s.total);
    std::fill_n(s.total + plan_.features_, count, 1.0f);
    row_dots(rows, plan_.features_ + count, {s.query, query_stride()}, s.total, s.scale);
    plan_.denominators_(rows, s.scale);
  }

  void gates(index_t batch, index_t head, index_t position, const Rows& keys, index_t count, const Scratch& s) const {
    (*gate_)({batch, head, position, count, keys, s.gate, s.rest});
  }

  // Before the keys of a panel join the state: fades the state, and each key by the gates after it.
  void forget(index_t count, const Sums& state, const Scratch& s) const {
    float kept = 1;
    for (index_t j = count - 1; j >= 0; --j) {
      s.kept[j] = s.rest[j] * kept;
      kept *= s.gate[j];
    }
    scale_rows(count, plan_.features_, {s.key, plan_.stride_}, s.kept, {s.key, plan_.stride_});
    for (const auto& [data, size] : {std::pair{state.sums, plan_.features_ * p_.value_dim}, {state.total, plan_.features_}})
      scale_rows(1, size, {data, size}, &kept, {data, size});
    *state.decay *= kept;
  }

  // Within a panel: weight (i, j) fades by the gates j+1 .. i, the state as query i sees it by the gates up to i. The first `skip` keys
  // have no queries.
  void gate_weights(index_t count, index_t skip, const Scratch& s) const {
    float* const faded = s.transposed;
    float kept = 1;
    for (index_t i = 0; i < count; ++i) {
      for (index_t j = 0; j < i; ++j) faded[j] *= s.gate[i];
      faded[i] = s.rest[i];
      kept *= s.gate[i];
      if (i < skip) continue;
      float* const row = weights(s) + (i - skip) * query_stride();
      for (index_t j = 0; j <= i; ++j) row[j] *= faded[j];
      s.kept[i - skip] = kept;
    }
    scale_rows(count - skip, plan_.features_, {s.query, query_stride()}, s.kept, {s.query, query_stride()});
  }

  const float* guarded(const float* scale) const { return plan_.denominators_ != nullptr ? scale : nullptr; }

  void clear(const Sums& state) const {
    std::fill_n(state.sums, plan_.sums_size(), 0.0f);
    *state.peak = lowest;
    *state.decay = 1;
  }
  // As the tokens before left it.
  void begin(index_t batch, index_t head, const Sums& state) const {
    clear(state);
    const Array* const sums = x_.before.find("before.sums");
    if (sums == nullptr) return;
    const auto row = [&](const Array& tensor, index_t width) { return tensor.f32_data() + (batch * p_.kv_heads + head) * width; };
    std::copy_n(row(*sums, plan_.features_ * p_.value_dim), plan_.features_ * p_.value_dim, state.sums);
    std::copy_n(row(x_.before["before.total"], plan_.features_), plan_.features_, state.total);
    if (const Array* peak = x_.before.find("before.peak")) *state.peak = *row(*peak, 1);
    if (const Array* decay = x_.before.find("before.decay")) *state.decay = *row(*decay, 1);
  }
  // `to` holds the keys that follow those of `from`, or any others where there are no gates.
  void merge(const Sums& from, const Sums& to) const {
    for (const auto& [sum, more, size] :
         {std::tuple{to.sums, from.sums, plan_.features_ * p_.value_dim}, {to.total, from.total, plan_.features_}})
      add(1, size, {more, size}, {sum, size}, gate_ != nullptr ? *to.decay : 1);
    *to.peak = std::max(*to.peak, *from.peak);
  }

  index_t query_stride() const { return plan_.stride_ + plan_.panel_; }
  float* weights(const Scratch& s) const { return s.query + plan_.features_; }

  Into sums(const Sums& state) const { return {state.sums, p_.value_dim}; }
  // Some rows of a head, where they lie or, stored otherwise, as floats in the worker's panel at `offset`.
  Rows rows_of(const View<const float, 4>& x, const Array& stored, index_t batch, index_t head, index_t first, index_t count,
               index_t offset, int worker) const {
    if (stored.empty()) return {x[batch][head].row(first), x.stride(2)};
    return float_rows(stored, batch, head, first, count, workspace_.of(worker, plan_.widened_).data() + plan_.panel_ * offset);
  }
  Rows query_rows(index_t batch, index_t head, index_t i, index_t count, int worker) const {
    return rows_of(x_.q, x_.stored_q, batch, head, i, count, 0, worker);
  }
  Rows key_rows(index_t batch, index_t head, index_t t, index_t count, int worker) const {
    return rows_of(x_.k, x_.stored_k, batch, head, t, count, p_.head_dim, worker);
  }
  Rows value_rows(index_t batch, index_t head, index_t t, index_t count, int worker) const {
    return rows_of(x_.v, x_.stored_v, batch, head, t, count, 2 * p_.head_dim, worker);
  }
  Into output(index_t batch, index_t head, index_t i) const { return {x_.out[batch][head].row(i), x_.out.stride(2)}; }
  // The panel that follows, if there is one.
  Fetch next(const View<const float, 4>& x, const Array& stored, index_t batch, index_t head, index_t first, index_t end) const {
    if (first >= end) return {};
    const index_t count = std::min(plan_.panel_, end - first);
    if (stored.empty()) return {x[batch][head].row(first), x.stride(2), count, x.extent(3)};
    const StoredRows rows = rows_of_head(stored, batch, head);  // of as many bytes
    constexpr index_t float_bytes = sizeof(float);
    return {reinterpret_cast<const float*>(rows.row(first)), rows.stride / float_bytes, count,
            bytes_of(stored.dtype(), stored.extent(3)) / float_bytes};
  }

  Sums state_at(float* at) const {
    float* const total = at + plan_.stride_ * p_.value_dim;
    return {at, total, total + plan_.stride_, total + plan_.stride_ + 1};
  }
  Sums segment_state(index_t i) const { return state_at(workspace_.shared(plan_.states_).data() + i * plan_.sums_size()); }
  Sums own_state(int worker) const { return state_at(workspace_.of(worker, plan_.scratch_).data()); }
  Scratch scratch(int worker) const {
    float* at = workspace_.of(worker, plan_.scratch_).data() + plan_.sums_size();
    const auto take = [&](index_t count) { return std::exchange(at, at + count); };
    const index_t panel = plan_.panel_, features = panel * plan_.stride_;
    float* const query = take(panel * query_stride());
    float *const key = take(features), *const transposed = take(features), *const total = take(plan_.stride_ + panel);
    return {query, key, transposed, take(panel), total, take(panel), take(panel), take(panel), take(panel)};
  }

  const LinearAttention& plan_;
  const Problem& p_;
  const Views& x_;
  const Workspace& workspace_;
  FeatureMap query_, key_;
  const GateMap* gate_;
};

void LinearAttention::run(const Views& arrays, const Workspace& workspace, FeatureMap query, FeatureMap key,
                          const GateMap* gate) const {
  Run(*this, arrays, workspace, query, key, gate).all();
}

StateSpec LinearAttention::state(const Problem& p, index_t features, Kind kind) {
  StateSpec spec{
      {{.name = "sums", .extents = {p.kv_heads, features, p.value_dim}}, {.name = "total", .extents = {p.kv_heads, features}}}};
  if (kind == Kind::peaks) spec.tensors.push_back({.name = "peak", .extents = {p.kv_heads}, .at_first = lowest});
  if (kind == Kind::gated) spec.tensors.push_back({.name = "decay", .extents = {p.kv_heads}, .at_first = 1});
  return spec;
}

void LinearAttention::absorb(const Views& tokens, const State& state, const Workspace& workspace, FeatureMap key,
                             const GateMap* gate) const {
  if (tokens.k.extent(2) == 1) return take_token(tokens, state, workspace, nullptr, &key, gate);
  Run(*this, tokens, workspace, key, key, gate).absorb_into(state);
}

void LinearAttention::answer(const Views& queries, const State& state, const Workspace& workspace, FeatureMap query) const {
  if (queries.q.extent(2) == 1) return take_token(queries, state, workspace, &query, nullptr, nullptr);
  Run(*this, queries, workspace, query, query, nullptr).answer_from(state);
}

void LinearAttention::merge(State& into, const State& later) {
  const Array& all = into["sums"];
  const index_t features = all.extent(2), value_dim = all.extent(3);
  for (index_t b = 0; b < into.batch(); ++b) {
    for (index_t h = 0; h < all.extent(1); ++h) {
      const Sums to = sums_of(into, b, h), from = sums_of(later, b, h);
      for (const auto& [sum, more, size] :
           {std::tuple{to.sums, from.sums, features * value_dim}, {to.total, from.total, features}}) {
        if (from.decay != nullptr) scale_rows(1, size, {sum, size}, from.decay, {sum, size});
        add(1, size, {more, size}, {sum, size}, 1);
      }
      if (to.peak != nullptr) *to.peak = std::max(*to.peak, *from.peak);
      if (to.decay != nullptr) *to.decay *= *from.decay;
    }
  }
}

}  // namespace attn::kernels
