#include "attn/kernels/linear/recurrence.hpp"

#include <algorithm>

#include "attn/core/round.hpp"
#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {
namespace {

// Rows of gemm's widest tiles: a step takes 0.58 us for one sequence, 0.95 for four, 1.39 for six, 2.23 for eight (Zen 4, D = 64).
constexpr index_t most_together = 6;

// As even as can be, and no fewer lanes than threads where there are as many sequences.
index_t together(const Problem& p, index_t threads) {
  const index_t most = std::min(most_together, std::max<index_t>(1, p.batch * p.heads / threads));
  return ceil_div(p.batch, ceil_div(p.batch, most));
}

}  // namespace

Recurrence::Recurrence(const Problem& p, index_t gates, index_t state, WorkspacePlan& workspace)
    : p_(p),
      wide_(gates * p.head_dim),
      state_(state * p.head_dim),
      together_(together(p, workspace.threads())),
      panel_(together_ == 1 ? 64 : 32),
      scratch_(workspace.per_worker<float>(together_ * ((panel_ + 1) * wide_ + state_))) {}

template <class F>
void Recurrence::each_lane(F f) const {
  const index_t lanes = ceil_div(p_.batch, together_);
  parallel_tasks(lanes * p_.heads, [&](index_t task, int worker) {
    const index_t first = task / p_.heads * together_;
    f(Lane{first, std::min(together_, p_.batch - first), task % p_.heads, nullptr, 0}, worker);
  });
}

void Recurrence::run(const Arrays& arrays, const Workspace& workspace, Step step) const {
  each_lane([&](Lane lane, int worker) {
    lane.state = workspace.of(worker, scratch_).data() + together_ * (panel_ + 1) * wide_;
    lane.stride = state_;
    std::fill_n(lane.state, lane.sequences * state_, 0.0f);
    advance(arrays, lane, workspace, worker, step);
  });
}

void Recurrence::absorb(const Arrays& arrays, const State& state, const Workspace& workspace, Step step) const {
  const auto states = state["state"].f32_out<4>();
  each_lane([&](Lane lane, int worker) {
    lane.state = states[lane.batch][lane.head].data_handle();
    lane.stride = states.stride(0);
    advance(arrays, lane, workspace, worker, step);
  });
}

void Recurrence::answer(const State& state, const View<float, 4>& out) {
  const auto states = state["state"].f32();
  for (index_t b = 0; b < out.extent(0); ++b)
    for (index_t h = 0; h < out.extent(1); ++h) std::copy_n(states[b][h].row(0), out.extent(3), out[b][h].row(0));
}

void Recurrence::advance(const Arrays& arrays, const Lane& lane, const Workspace& workspace, int worker, Step step) const {
  const index_t d = p_.head_dim, tokens = arrays.x.extent(2), sequences = lane.sequences, row = sequences * wide_;
  float* const inputs = workspace.of(worker, scratch_).data();  // [tokens of the panel, sequences, wide]
  const Into own{inputs + panel_ * row, wide_};
  const Rows w{arrays.w[lane.head].data_handle(), wide_}, u{arrays.u[lane.head].data_handle(), wide_};
  const float *const b = arrays.b + lane.head * wide_, *const c = arrays.c + lane.head * wide_;
  for (index_t first = 0; first < tokens; first += panel_) {
    const index_t rows = std::min(panel_, tokens - first);
    copy(rows * sequences, wide_, {b, 0}, {inputs, wide_});
    for (index_t s = 0; s < sequences; ++s) {
      const auto x = arrays.x[lane.batch + s][lane.head];
      gemm(rows, wide_, d, {x.row(first), x.stride(0)}, w, {inputs + s * wide_, row}, {.add = true});
    }
    for (index_t i = 0; i < rows; ++i) {
      copy(sequences, wide_, {c, 0}, own);
      gemm(sequences, wide_, d, {lane.state, lane.stride}, u, own, {.add = true});
      for (index_t s = 0; s < sequences; ++s) {
        float* const state = lane.state + s * lane.stride;
        step(inputs + i * row + s * wide_, own.data + s * wide_, state);
        if (arrays.out.data_handle() != nullptr) std::copy_n(state, d, arrays.out[lane.batch + s][lane.head].row(first + i));
      }
    }
  }
}

}  // namespace attn::kernels
