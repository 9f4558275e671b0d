#include "attn/kernels/linear/recurrence.hpp"

#include <algorithm>

#include "attn/kernels/dense/gemm.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {
namespace {

constexpr index_t panel = 64;  // tokens

}  // namespace

Recurrence::Recurrence(const Problem& p, index_t gates, index_t state, WorkspacePlan& workspace)
    : p_(p),
      wide_(gates * p.head_dim),
      state_(state * p.head_dim),
      scratch_(workspace.per_worker<float>((panel + 1) * wide_ + state_)) {}

void Recurrence::run(const Arrays& arrays, const Workspace& workspace, Step step) const {
  parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) {
    float* const state = workspace.of(worker, scratch_).data() + (panel + 1) * wide_;
    std::fill_n(state, state_, 0.0f);
    advance(arrays, task / p_.heads, task % p_.heads, state, workspace, worker, step);
  });
}

void Recurrence::absorb(const Arrays& arrays, const State& state, const Workspace& workspace, Step step) const {
  const auto states = state["state"].f32_out<4>();
  parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) {
    const index_t batch = task / p_.heads, head = task % p_.heads;
    advance(arrays, batch, head, states[batch][head].data_handle(), workspace, worker, step);
  });
}

void Recurrence::answer(const State& state, const View<float, 4>& out) {
  const auto states = state["state"].f32();
  for (index_t b = 0; b < out.extent(0); ++b)
    for (index_t h = 0; h < out.extent(1); ++h) std::copy_n(states[b][h].row(0), out.extent(3), out[b][h].row(0));
}

void Recurrence::advance(const Arrays& arrays, index_t batch, index_t head, float* state, const Workspace& workspace, int worker,
                         Step step) const {
  const index_t d = p_.head_dim, tokens = arrays.x.extent(2);
  const auto x = arrays.x[batch][head];
  const auto out = arrays.out.data_handle() != nullptr ? arrays.out[batch][head] : View<float, 2>();
  const Into inputs{workspace.of(worker, scratch_).data(), wide_};
  float* const own = inputs.data + panel * wide_;
  for (index_t first = 0; first < tokens; first += panel) {
    const index_t rows = std::min(panel, tokens - first);
    copy(rows, wide_, {arrays.b + head * wide_, 0}, inputs);
    gemm(rows, wide_, d, {x.row(first), x.stride(0)}, {arrays.w[head].data_handle(), wide_}, inputs, {.add = true});
    for (index_t i = 0; i < rows; ++i) {
      std::copy_n(arrays.c + head * wide_, wide_, own);
      gemm(1, wide_, d, {state, d}, {arrays.u[head].data_handle(), wide_}, {own, wide_}, {.add = true});
      step(inputs.data + i * wide_, own, state);
      if (out.data_handle() != nullptr) std::copy_n(state, d, out.row(first + i));
    }
  }
}

}  // namespace attn::kernels
