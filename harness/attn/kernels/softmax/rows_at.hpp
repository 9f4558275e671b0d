// The queries that stand at chosen positions, as the one block of QueryBlocks::listed(1, count).
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "attn/core/problem.hpp"
#include "attn/exec/workspace.hpp"

namespace attn::kernels {

class RowsAt {
 public:
  // Positions in ascending order.
  RowsAt(const Problem& problem, std::vector<std::int32_t> positions, WorkspacePlan& plan)
      : problem_(problem), positions_(std::move(positions)), stride_(1 + static_cast<index_t>(positions_.size())) {
    rows_ = plan.shared<std::int32_t>(problem.batch * stride_);
  }

  // Before a run: whether there are any. `lengths`: of the sequences, where they differ (Arrays::lengths).
  bool list(std::span<const index_t> lengths, const Workspace& workspace) const {
    bool any = false;
    for (index_t batch = 0; batch < problem_.batch; ++batch) {
      Problem own = problem_;
      if (!lengths.empty()) own = problem_.sequence(lengths[static_cast<std::size_t>(batch)]);
      std::int32_t* const rows = workspace.shared(rows_).data() + batch * stride_;
      std::int32_t* end = rows + 1;
      for (const std::int32_t position : positions_) {
        const index_t row = position - own.query_position(0);
        if (row >= 0 && row < own.q_len) *end++ = static_cast<std::int32_t>(row);
      }
      rows[0] = static_cast<std::int32_t>(end - rows - 1);
      any = any || rows[0] > 0;
    }
    return any;
  }

  // A RowSchedule of what was listed.
  auto in(const Workspace& workspace) const {
    const std::int32_t* const all = workspace.shared(rows_).data();
    return [=, this](index_t batch, index_t, index_t) {
      const std::int32_t* const rows = all + batch * stride_;
      return std::span(rows + 1, static_cast<std::size_t>(rows[0]));
    };
  }

 private:
  Problem problem_;
  std::vector<std::int32_t> positions_;
  index_t stride_;
  Booking<std::int32_t> rows_;
};

}  // namespace attn::kernels
