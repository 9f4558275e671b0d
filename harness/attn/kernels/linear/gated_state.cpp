#include "attn/kernels/linear/gated_state.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "attn/core/round.hpp"
#include "attn/kernels/dense/activations.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

// Rows lie `stride` apart, but for those of `asked`, which multiply [state; values] in one product.
struct GatedState::Scratch {
  float* state;  // [head_dim, columns]
  Rows keys;     // what the map gave
  float *key, *read, *add, *gate;
  float *log_gate, *beta;  // [gated_panel]
  PanelDecay decay;        // scalar
  float *upto, *since;     // vector: products of gates up to a token, of those after the panel's first
  float* left;             // keys, or a, that ask the state or other keys
  float* divided;          // keys / since
  float* transposed;       // [head_dim, 2 gated_panel]: of b, then of the keys
  float* to_end;           // [2 gated_panel]: b and keys that fade to the panel's end
  float* values;           // [2 gated_panel, columns]: what the tokens add, in rows of the two
  float* weights;          // [gated_panel, gated_panel]
  float* asked;            // [gated_panel, head_dim + 2 gated_panel]: queries, and behind them weights of the panel's values
  float *factor, *own;     // [gated_panel]: of queries
  float* decayed;          // [gated_panel]: the gates whose products are in `decay`
};

GatedState::GatedState(const Problem& p, const Form& form, WorkspacePlan& workspace)
    : p_(p), form_(form), stride_(round_up(p.head_dim, 16)), columns_(p.value_dim) {
  const index_t heads = p.batch * p.kv_heads, threads = workspace.threads();
  if (threads > 1 && heads < 2 * threads) {
    columns_ = round_up(ceil_div(p.value_dim, ceil_div(2 * threads, heads)), 16);
    parts_ = ceil_div(p.value_dim, columns_);
  }
  scratch_ = workspace.per_worker<float>(columns_ * (p.head_dim + 2 * gated_panel) + 10 * gated_panel * stride_ +
                                         gated_panel * (3 * p.head_dim + 4 * gated_panel + 8));
}

class GatedState::Run {
 public:
  Run(const GatedState& plan, const Arrays& arrays, const Workspace& workspace, const Maps& maps)
      : plan_(plan),
        p_(plan.p_),
        form_(plan.form_),
        q_(arrays.q.f32()),
        k_(arrays.k.f32()),
        v_(arrays.v.f32()),
        out_(arrays.out.f32_out()),
        workspace_(workspace),
        maps_(maps) {}

  void all() const {
    each([&](const Part& part) {
      std::fill_n(part.sums.data, p_.head_dim * part.columns, 0.0f);
      const index_t before = std::clamp<index_t>(-p_.query_position(0), 0, p_.q_len);
      for (index_t h = part.head * group(); h < (part.head + 1) * group(); ++h)
        for (index_t i = 0; i < before; ++i) std::fill_n(output(part, h, i).data, part.columns, 0.0f);
      pass(part, p_.query_position(0), nullptr);
    });
  }

  // Verbs of a state.
  void absorb_into(const State& state) const {
    each([&](const Part& part) { pass(of_state(part, state), no_queries, &state); });
  }
  void answer_from(const State& state) const {
    each([&](const Part& one) {
      const Part part = of_state(one, state);
      const index_t rows = q_.extent(2), d = p_.head_dim;
      const Scratch& s = part.scratch;
      for (index_t h = part.head * group(); h < (part.head + 1) * group(); ++h) {
        for (index_t i = 0; i < rows; i += gated_panel) {
          const index_t count = std::min(gated_panel, rows - i);
          const Rows asking = ask(part, h, i, count);
          copy(count, d, asking, {s.asked, asked_stride()});
          Rows last = {};
          if (form_.own_token) {
            const Rows key{state["key"].f32<3>()[part.batch].row(part.head), 0};
            maps_.own({h, part.head, count, asking, key, s.own});
            for (index_t r = 0; r < count; ++r) s.asked[r * asked_stride() + d] = s.own[r];
            last = {state["value"].f32<3>()[part.batch].row(part.head) + part.first, p_.value_dim};
          }
          gemm(count, part.columns, d, {s.asked, asked_stride()}, part.sums, output(part, h, i),
               {.row_scale = s.factor, .below = last, .below_k = form_.own_token ? 1 : 0});
        }
      }
    });
  }

 private:
  static constexpr index_t no_queries = index_t{1} << 60;  // the first of them stands there

  // Some columns of the state of one kv head.
  struct Part {
    index_t batch, head, first, columns;
    Into sums;
    Scratch scratch;
    int worker;
  };

  template <class F>
  void each(F f) const {
    parallel_tasks(p_.batch * p_.kv_heads * plan_.parts_, [&](index_t task, int worker) {
      const index_t head = task / plan_.parts_, first = task % plan_.parts_ * plan_.columns_;
      const Scratch s = scratch(worker);
      const index_t columns = std::min(plan_.columns_, p_.value_dim - first);
      f(Part{head / p_.kv_heads, head % p_.kv_heads, first, columns, {s.state, columns}, s, worker});
    });
  }
  Part of_state(Part part, const State& state) const {
    part.sums = {state["sums"].f32_out<4>()[part.batch][part.head].data_handle() + part.first, p_.value_dim};
    return part;
  }

  // All keys into the state, and the queries among them, of which the first stands at key `asks_from`.
  void pass(const Part& part, index_t asks_from, const State* kept) const {
    const index_t tokens = k_.extent(2);
    Scratch s = part.scratch;
    std::fill_n(s.decayed, gated_panel, std::numeric_limits<float>::quiet_NaN());
    for (index_t t = 0; t < tokens; t += gated_panel) {
      const index_t count = std::min(gated_panel, tokens - t);
      s.keys = maps_.tokens({.batch = part.batch,
                             .head = part.head,
                             .row = t,
                             .count = count,
                             .keys = rows_of(k_, part, part.head, t),
                             .key = {s.key, stride()},
                             .read = {s.read, stride()},
                             .add = {s.add, stride()},
                             .gate = {s.gate, stride()},
                             .log_gate = s.log_gate,
                             .beta = s.beta,
                             .worker = part.worker});
      // Gates that leave the range of floats end a panel: what follows starts from the state.
      for (index_t first = 0; first < count;) first += panel(part, s, t, first, count - first, asks_from, kept);
    }
    if (kept != nullptr && form_.own_token) keep_last(part, s.keys, *kept);
  }

  // Tokens t + first and some after it, at most `most`: how many they were.
  index_t panel(const Part& part, Scratch s, index_t t, index_t first, index_t most, index_t asks_from, const State* kept) const {
    for (float** rows : {&s.read, &s.add, &s.gate}) *rows += first * stride();
    s.keys.data += first * s.keys.stride;
    s.log_gate += first, s.beta += first, t += first;
    index_t count = most;
    if (vector())
      count = gate_products(most, p_.head_dim, gates(s), {s.upto, stride()}, {s.since, stride()});
    else
      decay(count, s);
    turn_keys(count, s);
    const Rows written = write_values(part, t, count, s);

    // Query row + r stands at token t + skip + r, the last one at the panel's end.
    const index_t row = std::max<index_t>(0, t - asks_from), skip = row + asks_from - t;
    const index_t rows = std::max<index_t>(0, t + count - asks_from) - row;
    for (index_t h = part.head * group(); rows > 0 && h < (part.head + 1) * group(); ++h)
      answer(part, h, row, rows, count, skip, written, s);

    fade_keys(count, s);
    const index_t more = t + count;
    fade_and_add(p_.head_dim, part.columns, families() * count, {s.to_end, stride()}, written,
                 vector() ? Fade{s.upto + (count - 1) * stride(), true} : Fade{s.decay.all, false}, part.sums,
                 next(k_, part, part.head, more), next(v_, part, part.head, more));
    if (kept != nullptr) keep_decay(part, *kept, count, s);
    return count;
  }

  // Gates that are those of the panel before, as fixed ones are, have its products.
  static void decay(index_t count, const Scratch& s) {
    if (count == gated_panel && std::equal(s.log_gate, s.log_gate + count, s.decayed)) return;
    decay_of(count, s.log_gate, s.decay);
    std::copy_n(s.log_gate, count, s.decayed);
    std::fill_n(s.decayed + count, gated_panel - count, std::numeric_limits<float>::quiet_NaN());
  }

  // Keys, and b, as the weights of a panel want them: their columns, divided by the gates since the first token.
  void turn_keys(index_t count, const Scratch& s) const {
    const index_t d = p_.head_dim;
    for (index_t family = 0; family < families(); ++family) {
      Rows rows = added(family, s);
      if (vector()) {
        divide(count, d, rows, {s.since, stride()}, 0, {s.divided, stride()});
        rows = {s.divided, stride()};
      }
      transpose(count, d, rows, {s.transposed + family * gated_panel, 2 * gated_panel});
    }
  }
  void fade_keys(index_t count, const Scratch& s) const {
    for (index_t family = 0; family < families(); ++family) {
      const Rows rows = added(family, s);
      const Into to{s.to_end + family * count * stride(), stride()};
      if (vector())
        fade_to_end(count, p_.head_dim, gates(s), rows, to);
      else
        scale_rows(count, p_.head_dim, rows, s.decay.after, to);
    }
  }

  // Weights of the keys, or of b, for rows that stand at tokens skip, skip + 1, ...; later tokens, and the own one unless `with_own`, have none.
  void weigh(index_t rows, index_t count, index_t skip, Rows left, index_t family, bool with_own, Into weights,
             const Scratch& s) const {
    gemm(rows, count, p_.head_dim, {left.data, left.stride}, {s.transposed + family * gated_panel, 2 * gated_panel}, weights,
         {.lower = Lower::result, .diagonal = skip - (with_own ? 0 : 1)});
    if (!vector()) multiply(rows, count, weights, {s.decay.between + skip * gated_panel, gated_panel}, weights);
  }

  // The rows that the panel adds to the state beside its keys, or b and keys.
  Rows write_values(const Part& part, index_t t, index_t count, const Scratch& s) const {
    const Rows given{v_[part.batch][part.head].row(t) + part.first, v_.stride(2)};
    const Into weights{s.weights, gated_panel}, values{s.values, part.columns};
    const index_t d = p_.head_dim;
    if (form_.write == Write::add) return given;
    if (form_.write == Write::delta) {
      // What the state says of a token reads it as faded by the token's own gate.
      const Into left{s.left, stride()};
      if (vector()) {
        multiply(count, d, s.keys, {s.since, stride()}, left);
        weigh(count, count, 0, left, 0, false, weights, s);
        multiply(count, d, s.keys, {s.upto, stride()}, left);
      } else {
        weigh(count, count, 0, s.keys, 0, false, weights, s);
        scale_rows(count, d, s.keys, s.decay.upto, left);
      }
      gemm(count, part.columns, d, {s.left, stride()}, part.sums, values);
      substitute_delta(count, part.columns, weights, s.beta, given, values);
      return values;
    }
    // rank_one reads the state before it fades: token i by the products up to i - 1, the first one by none.
    ATTN_ASSERT(vector());
    std::fill_n(s.left, d, 0.0f);
    multiply(count - 1, d, {s.read + stride(), stride()}, {s.since, stride()}, {s.left + stride(), stride()});
    weigh(count, count, 0, {s.left, stride()}, 0, false, weights, s);
    weigh(count, count, 0, {s.left, stride()}, 1, false, {s.asked + d, asked_stride()}, s);
    std::copy_n(s.read, d, s.asked);
    multiply(count - 1, d, {s.read + stride(), stride()}, {s.upto, stride()}, {s.asked + asked_stride(), asked_stride()});
    gemm(count, part.columns, d, {s.asked, asked_stride()}, part.sums, values,
         {.below = given, .below_k = count, .lower = Lower::left, .diagonal = d - 1});
    substitute(count, part.columns, weights, values);
    copy(count, part.columns, given, {s.values + count * part.columns, part.columns});
    return values;
  }

  void answer(const Part& part, index_t h, index_t row, index_t rows, index_t count, index_t skip, Rows written,
              const Scratch& s) const {
    const index_t d = p_.head_dim;
    const Rows asking = ask(part, h, row, rows);
    const Into to{s.asked, asked_stride()};
    Rows within = asking;
    if (vector()) {
      multiply(rows, d, asking, {s.since + skip * stride(), stride()}, {s.left, stride()});
      within = {s.left, stride()};
    }
    for (index_t family = 0; family < families(); ++family)
      weigh(rows, count, skip, within, family, true, {to.data + d + family * count, to.stride}, s);
    if (form_.own_token) {
      maps_.own({h, part.head, rows, asking, {s.keys.data + skip * s.keys.stride, s.keys.stride}, s.own});
      float* const weight = to.data + d + (families() - 1) * count + skip;
      for (index_t i = 0; i < rows; ++i) weight[i * (to.stride + 1)] += s.own[i];
    }
    if (vector())
      multiply(rows, d, asking, {s.upto + skip * stride(), stride()}, to);
    else
      scale_rows(rows, d, asking, s.decay.upto + skip, to);
    gemm(rows, part.columns, d, {to.data, to.stride}, part.sums, output(part, h, row),
         {.row_scale = s.factor,
          .below = written,
          .below_k = families() * count,
          .lower = families() == 1 ? Lower::left : Lower::none,
          .diagonal = d + skip,
          .fetch = {next(q_, part, h, row + rows), next(out_, part, h, row + rows)}});
  }

  // Rows of a query head, and their factors.
  Rows ask(const Part& part, index_t h, index_t row, index_t rows) const {
    const Rows asking = rows_of(q_, part, h, row);
    maps_.queries({part.batch, h, rows, asking, part.scratch.factor});
    return asking;
  }

  void keep_decay(const Part& part, const State& state, index_t count, const Scratch& s) const {
    if (form_.write != Write::add || part.first > 0) return;
    float* const decay = state["decay"].f32_out<3>()[part.batch].row(part.head);
    if (vector())
      multiply(1, p_.head_dim, {decay, stride()}, {s.upto + (count - 1) * stride(), stride()}, {decay, stride()});
    else
      *decay *= *s.decay.all;
  }
  // The token at hand is the last one of the last block.
  void keep_last(const Part& part, Rows keys, const State& state) const {
    const index_t last = k_.extent(2) - 1;
    const float* const value = v_[part.batch][part.head].row(last) + part.first;
    std::copy_n(value, part.columns, state["value"].f32_out<3>()[part.batch].row(part.head) + part.first);
    const float* const key = keys.data + last % gated_panel * keys.stride;
    if (part.first == 0) std::copy_n(key, p_.head_dim, state["key"].f32_out<3>()[part.batch].row(part.head));
  }

  bool vector() const { return form_.gate == Gate::vector; }
  index_t families() const { return form_.write == Write::rank_one ? 2 : 1; }  // of rows that are added: b and keys, or keys
  index_t group() const { return p_.heads / p_.kv_heads; }
  index_t stride() const { return plan_.stride_; }
  index_t asked_stride() const { return p_.head_dim + 2 * gated_panel; }
  Rows added(index_t family, const Scratch& s) const { return family + 1 < families() ? Rows{s.add, stride()} : s.keys; }
  Rows gates(const Scratch& s) const { return {s.gate, stride()}; }

  template <class T>
  static Rows rows_of(const View<T, 4>& x, const Part& part, index_t head, index_t i) {
    return {x[part.batch][head].row(i), x.stride(2)};
  }
  Into output(const Part& part, index_t head, index_t i) const {
    return {out_[part.batch][head].row(i) + part.first, out_.stride(2)};
  }
  // The panel that follows, if there is one.
  template <class T>
  static Fetch next(const View<T, 4>& x, const Part& part, index_t head, index_t first) {
    if (first >= x.extent(2)) return {};
    return {x[part.batch][head].row(first), x.stride(2), std::min(gated_panel, x.extent(2) - first), x.extent(3)};
  }

  Scratch scratch(int worker) const {
    float* at = workspace_.of(worker, plan_.scratch_).data();
    const auto take = [&](index_t count) { return std::exchange(at, at + count); };
    const index_t panel = gated_panel, rows = panel * stride(), columns = plan_.columns_;
    Scratch s{};
    s.state = take(p_.head_dim * columns), s.values = take(2 * panel * columns);
    for (float** x : {&s.key, &s.read, &s.add, &s.gate, &s.upto, &s.since, &s.left, &s.divided}) *x = take(rows);
    s.to_end = take(2 * rows);
    s.transposed = take(2 * panel * p_.head_dim);
    s.asked = take(panel * asked_stride());
    s.weights = take(panel * panel), s.decay.between = take(panel * panel);
    for (float** x : {&s.log_gate, &s.beta, &s.decay.upto, &s.decay.after, &s.decay.all, &s.own, &s.factor, &s.decayed})
      *x = take(panel);
    return s;
  }

  const GatedState& plan_;
  const Problem& p_;
  const Form& form_;
  const View<const float, 4> q_, k_, v_;
  const View<float, 4> out_;
  const Workspace& workspace_;
  const Maps& maps_;
};

void GatedState::run(const Arrays& arrays, const Workspace& workspace, const Maps& maps) const {
  Run(*this, arrays, workspace, maps).all();
}

StateSpec GatedState::state(const Problem& p, const Form& form) {
  StateSpec spec{{{.name = "sums", .extents = {p.kv_heads, p.head_dim, p.value_dim}}}};
  if (form.write == Write::add)
    spec.tensors.push_back({.name = "decay", .extents = {p.kv_heads, form.gate == Gate::vector ? p.head_dim : 1}, .at_first = 1});
  if (form.own_token) {
    spec.tensors.push_back({.name = "key", .extents = {p.kv_heads, p.head_dim}});
    spec.tensors.push_back({.name = "value", .extents = {p.kv_heads, p.value_dim}});
  }
  return spec;
}

void GatedState::absorb(const Arrays& tokens, const State& state, const Workspace& workspace, const Maps& maps) const {
  Run(*this, tokens, workspace, maps).absorb_into(state);
}

void GatedState::answer(const Arrays& queries, const State& state, const Workspace& workspace, const Maps& maps) const {
  Run(*this, queries, workspace, maps).answer_from(state);
}

void GatedState::merge(State& into, const State& later) {
  const auto sums = into["sums"].f32_out<4>(), more = later["sums"].f32_out<4>();
  const auto decay = into["decay"].f32_out<3>(), faded = later["decay"].f32_out<3>();
  const index_t d = sums.extent(2), n = sums.extent(3), gates = decay.extent(2);
  for (index_t b = 0; b < sums.extent(0); ++b) {
    for (index_t h = 0; h < sums.extent(1); ++h) {
      for (index_t c = 0; c < d; ++c) {
        const Into row{sums[b][h].row(c), n};
        scale_rows(1, n, row, &faded(b, h, c % gates), row);
        add(1, n, {more[b][h].row(c), n}, row);
      }
      for (index_t c = 0; c < gates; ++c) decay(b, h, c) *= faded(b, h, c);
      for (const char* last : {"key", "value"}) {
        if (into.find(last) == nullptr) continue;
        const auto to = into[last].f32_out<3>(), from = later[last].f32_out<3>();
        std::copy_n(from[b].row(h), to.extent(2), to[b].row(h));
      }
    }
  }
}

}  // namespace attn::kernels
