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
  const index_t d = p_.head_dim;
  parallel_tasks(p_.batch * p_.heads, [&](index_t task, int worker) {
    const index_t head = task % p_.heads;
    const auto x = arrays.x[task / p_.heads][head];
    const auto out = arrays.out[task / p_.heads][head];
    const Into inputs{workspace.of(worker, scratch_).data(), wide_};
    float *own = inputs.data + panel * wide_, *state = own + wide_;
    std::fill_n(state, state_, 0.0f);
    for (index_t first = 0; first < p_.q_len; first += panel) {
      const index_t rows = std::min(panel, p_.q_len - first);
      copy(rows, wide_, {arrays.b + head * wide_, 0}, inputs);
      gemm(rows, wide_, d, {x.row(first), x.stride(0)}, {arrays.w[head].data_handle(), wide_}, inputs, {.add = true});
      for (index_t i = 0; i < rows; ++i) {
        std::copy_n(arrays.c + head * wide_, wide_, own);
        gemm(1, wide_, d, {state, d}, {arrays.u[head].data_handle(), wide_}, {own, wide_}, {.add = true});
        step(inputs.data + i * wide_, own, state);
        std::copy_n(state, d, out.row(first + i));
      }
    }
  });
}

}  // namespace attn::kernels
