// One token of each sequence and head: taken up by a state, answered from it, or both.
#include <algorithm>
#include <string_view>
#include <utility>

#include "attn/core/assert.hpp"
#include "attn/kernels/dense/rows.hpp"
#include "attn/kernels/linear/linear_attention.hpp"
#include "attn/kernels/linear/token_sweep.hpp"

namespace attn::kernels {

namespace {

// Sums up to which one thread takes a token through all heads: to wake others takes as long as reading and writing a megabyte.
constexpr index_t one_thread_floats = index_t{1} << 18;

}  // namespace

// A state's memory, looked up once.
struct LinearAttention::StateViews {
  explicit StateViews(const State& state)
      : sums(state["sums"].f32_out<4>()),
        total(state["total"].f32_out<3>()),
        peak(numbers(state, "peak")),
        decay(numbers(state, "decay")) {}
  Sums of(index_t batch, index_t head) const {
    return {sums[batch][head].data_handle(), total[batch].row(head), number(peak, batch, head), number(decay, batch, head)};
  }

  View<float, 4> sums;
  View<float, 3> total;
  View<float, 2> peak, decay;

 private:
  static View<float, 2> numbers(const State& state, std::string_view name) {
    const Array* found = state.find(name);
    return found != nullptr ? found->f32_out<2>() : View<float, 2>();
  }
  static float* number(const View<float, 2>& of, index_t batch, index_t head) {
    return of.data_handle() != nullptr ? &of(batch, head) : nullptr;
  }
};

LinearAttention::Sums LinearAttention::sums_of(const State& state, index_t batch, index_t head) {
  return StateViews(state).of(batch, head);
}

class LinearAttention::Token {
 public:
  Token(const LinearAttention& plan, const Views& x, const State& state, const Workspace& workspace, const FeatureMap* query,
        const FeatureMap* key, const GateMap* gate)
      : plan_(plan),
        p_(plan.p_),
        group_(p_.heads / p_.kv_heads),
        position_(state.end() - (key == nullptr)),
        x_(x),
        state_(state),
        workspace_(workspace),
        query_(query),
        key_(key),
        gate_(gate) {}

  // Some kv heads at a time, as many as have their queries in one panel of features.
  void operator()() const {
    index_t at_once = std::max<index_t>(1, plan_.panel_ / group_);
    const bool alone = arena_threads() == 1 || state_.sums.size() < one_thread_floats;
    if (!alone) at_once = std::clamp<index_t>(p_.batch * p_.kv_heads / (4 * arena_threads()), 1, at_once);
    const index_t chunks = (p_.kv_heads + at_once - 1) / at_once, tasks = p_.batch * chunks;
    const auto chunk = [&](index_t task, int worker) {
      const index_t first = task % chunks * at_once;
      some_heads(task / chunks, first, std::min(at_once, p_.kv_heads - first), scratch(worker));
    };
    if (!alone) return parallel_tasks(tasks, chunk);
    for (index_t task = 0; task < tasks; ++task) chunk(task, 0);
  }

 private:
  // Rows of heads.
  struct Scratch {
    int worker;
    Into query, key;
    float *norm, *peak, *gate, *rest;
  };
  Scratch scratch(int worker) const {
    float* at = workspace_.of(worker, plan_.token_).data();
    const auto take = [&](index_t count) { return std::exchange(at, at + plan_.panel_ * count); };
    const index_t stride = plan_.stride_;
    float *const query = take(stride), *const key = take(stride), *const norm = take(1), *const peak = take(1);
    return {worker, {query, stride}, {key, stride}, norm, peak, take(1), take(1)};
  }

  void some_heads(index_t batch, index_t first, index_t count, const Scratch& s) const {
    if (key_ != nullptr) make_keys(batch, first, count, s);
    if (query_ == nullptr) {
      for (index_t i = 0; i < count; ++i) sweep_token(sweep(batch, first, i, s));
      return;
    }
    const index_t end = (first + count) * group_;
    for (index_t head = first * group_, rows = 0; head < end; head += rows) {
      rows = std::min(plan_.panel_, end - head);
      make_queries(batch, head, rows, s);
      for (index_t row = 0, some = 0; row < rows; row += some) {
        const index_t kv_head = p_.kv_head(head + row);
        some = std::min(rows - row, group_);
        TokenSweep token = sweep(batch, first, kv_head - first, s);
        if ((head + row) % group_ != 0) token.key = nullptr;  // it came with the head's first queries
        token.rows = some;
        token.queries = {s.query.data + row * s.query.stride, s.query.stride};
        token.denominators = plan_.denominators_;
        token.norm = s.norm + row;
        token.out = {x_.out[batch][head + row].row(0), x_.out.stride(1)};
        sweep_token(token);
      }
    }
  }

  // Into the scratch, faded where there are gates.
  void make_keys(index_t batch, index_t first, index_t count, const Scratch& s) const {
    (*key_)({batch, first, position_, count, across(x_.k, batch, first), s.key, s.peak, nullptr, s.worker, true});
    for (index_t i = 0; i < count; ++i) {
      const Sums state = state_.of(batch, first + i);
      if (plan_.peaks_) *state.peak = std::max(*state.peak, s.peak[i]);
      if (gate_ == nullptr) continue;
      const Into key{s.key.data + i * s.key.stride, 0};
      (*gate_)({batch, first + i, position_, 1, {x_.k[batch][first + i].row(0), 0}, s.gate + i, s.rest + i});
      scale_rows(1, plan_.features_, key, s.rest + i, key);
      *state.decay *= s.gate[i];
    }
  }

  void make_queries(index_t batch, index_t first, index_t rows, const Scratch& s) const {
    for (index_t i = 0; plan_.peaks_ && i < rows; ++i) s.peak[i] = *state_.of(batch, p_.kv_head(first + i)).peak;
    (*query_)({batch, first, position_, rows, across(x_.q, batch, first), s.query, s.peak, nullptr, s.worker, true});
  }

  // Of kv head `first` + i, without queries.
  TokenSweep sweep(index_t batch, index_t first, index_t i, const Scratch& s) const {
    const Sums state = state_.of(batch, first + i);
    TokenSweep token{.features = plan_.features_, .value_dim = p_.value_dim, .sums = state.sums, .total = state.total};
    if (key_ == nullptr) return token;
    token.key = s.key.data + i * s.key.stride;
    token.value = x_.v[batch][first + i].row(0);
    if (gate_ != nullptr) token.keep = s.gate[i];
    return token;
  }

  static Rows across(const View<const float, 4>& x, index_t batch, index_t head) { return {x[batch][head].row(0), x.stride(1)}; }

  const LinearAttention& plan_;
  const Problem& p_;
  index_t group_, position_;
  const Views& x_;
  const StateViews state_;
  const Workspace& workspace_;
  const FeatureMap *query_, *key_;
  const GateMap* gate_;
};

void LinearAttention::take_token(const Views& x, const State& state, const Workspace& workspace, const FeatureMap* query,
                                 const FeatureMap* key, const GateMap* gate) const {
  const Token token(*this, x, state, workspace, query, key, gate);
  token();
}

void LinearAttention::step(const Views& token, const State& state, const Workspace& workspace, FeatureMap query, FeatureMap key,
                           const GateMap* gate) const {
  take_token(token, state, workspace, &query, &key, gate);
}

}  // namespace attn::kernels
