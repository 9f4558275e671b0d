#include "attn/kernels/softmax/attention.hpp"

#include <algorithm>

#include "attn/core/assert.hpp"

namespace attn::kernels {

namespace {

RowsOptions rows_options(const Problem& p, const EngineOptions& options) {
  const QueryBlocks& queries = options.queries;
  const bool apart = queries.kind == QueryBlocks::Kind::classes || queries.align > 0;
  const index_t lists = apart ? 1 : p.q_len;  // in one
  return {.scale = options.scale,
          .keys = options.keys_per_query < p.kv_len ? std::min(p.kv_len, options.keys_per_query * lists) : p.kv_len,
          .spans = options.stretches,
          .apart = apart,
          .heads_apart = options.heads_apart,
          .softcap = options.softcap};
}

}  // namespace

Attention::Attention(const Problem& problem, const EngineOptions& options, WorkspacePlan& plan) {
  const RowsOptions of_rows = rows_options(problem, options);
  const bool plain = options.softcap == 0 && !options.biased;
  if (meets_few_rows(problem) && options.queries.kind != QueryBlocks::Kind::listed &&
      (plain || RowsEngine::takes_scores(problem, of_rows)))
    rows_.emplace(problem, of_rows, plan);
  else
    blocks_.emplace(problem, options, plan);
}

void Attention::run(const EngineArrays& a, const Workspace& workspace, KeySchedule schedule) const {
  if (blocks_) return blocks_->run(a, workspace, schedule);
  rows_->run(
      {.q = a.q, .k = a.k, .v = a.v, .out = a.out, .lse = a.lse, .layout = a.layout, .potential = a.potential, .resume = a.resume},
      a.lengths, workspace, schedule);
}

void Attention::run(const EngineArrays& a, const Workspace& workspace, RowSchedule rows, KeySchedule schedule) const {
  blocks_->run(a, workspace, rows, schedule);
}

void Attention::backward(const EngineArrays& a, const EngineGradients& g, const Workspace& workspace, KeySchedule schedule) const {
  blocks_->backward(a, g, workspace, schedule);
}

void Attention::backward(const EngineArrays& a, const EngineGradients& g, const Workspace& workspace, RowSchedule rows,
                         KeySchedule schedule) const {
  blocks_->backward(a, g, workspace, rows, schedule);
}

void Attention::leave_out(std::span<const std::int32_t> rows, const Workspace& workspace) const {
  blocks_->leave_out(rows, workspace);
}

}  // namespace attn::kernels
