#include "attn/kernels/choose/page_bounds.hpp"

#include <algorithm>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"
#include "attn/exec/arena.hpp"
#include "attn/exec/choice_time.hpp"
#include "attn/kernels/choose/selection.hpp"

namespace attn::kernels {

namespace {

constexpr index_t rows_together = 48;  // whose bounds are made at once

}  // namespace

PageBounds::PageBounds(const Problem& p, index_t page, index_t take, WorkspacePlan& plan)
    : p_(p), page_(page), take_(take), pages_(ceil_div(p.kv_len, page)) {
  ATTN_ASSERT(p.causal && page >= 1 && take >= 0);
  floats_ = plan.per_worker<float>(rows_together * (2 * p.head_dim + pages_) + take);
}

void PageBounds::take_in(index_t first, index_t count, Rows k, float* bounds) const {
  const index_t d = p_.head_dim;
  for (index_t t = first; t < first + count; ++t) {
    const float* const key = k.data + (t - first) * k.stride;
    float* const most = bounds + t / page_;
    float* const least = most + d * pages_;
    const bool fresh = t % page_ == 0;
    for (index_t c = 0; c < d; ++c) {
      float &high = most[c * pages_], &low = least[c * pages_];
      high = fresh || !(high >= key[c]) ? key[c] : high;
      low = fresh || !(low <= key[c]) ? key[c] : low;
    }
  }
}

// The bound sum_c max(q_c most_c, q_c least_c) is a product: of what is positive of q with the largest numbers, and of what is negative with
// the least.
template <class F>
void PageBounds::choose(Rows q, index_t count, F position, const float* bounds, float* scratch, std::int32_t* lists) const {
  const index_t d = p_.head_dim;
  const auto past = [&](index_t i) { return std::max<index_t>(0, position(i)) / page_; };
  float* const signs = scratch;
  float *const scores = signs + rows_together * 2 * d, *const best = scores + rows_together * pages_;
  for (index_t i = 0; i < count; ++i) {
    for (index_t c = 0; c < d; ++c) {
      const float x = q.data[i * q.stride + c];
      signs[i * 2 * d + c] = x > 0 ? x : 0;
      signs[i * 2 * d + d + c] = x > 0 ? 0 : x;
    }
  }
  const index_t most = past(count - 1);
  if (most > 0 && take_ > 0) gemm(count, most, 2 * d, {signs, 2 * d}, {bounds, pages_}, {scores, pages_});
  for (index_t i = 0; i < count; ++i) {
    std::int32_t* const list = lists + i * list_size();
    take_largest(scores + i * pages_, past(i), take_, best, list + 1);
    std::int32_t* const end = std::find(list + 1, list + 1 + take_, -1);
    if (position(i) >= 0) *end = static_cast<std::int32_t>(past(i));
    list[0] = static_cast<std::int32_t>(end - list - 1 + (position(i) >= 0 ? 1 : 0));
  }
}

void PageBounds::choose(const Queries& of, const float* bounds, const Workspace& workspace, std::int32_t* lists) const {
  const ChoiceTime choosing;
  const index_t panels = ceil_div(of.count, rows_together);
  parallel_tasks(p_.batch * p_.heads * panels, [&](index_t task, int worker) {
    const index_t head = task / panels, b = head / p_.heads, h = head % p_.heads, at = task % panels * rows_together;
    const auto rows = of.q[b][h];
    choose(
        {rows.row(of.first + at), rows.stride(0)}, std::min(rows_together, of.count - at),
        [&](index_t i) { return of.position + at + i; }, bounds + (b * p_.kv_heads + p_.kv_head(h)) * floats(),
        workspace.of(worker, floats_).data(), lists + (head * of.count + at) * list_size());
  });
}

std::vector<std::int32_t> chosen_pages(const Problem& p, index_t page, index_t take, const float* q,
                                       std::span<const index_t> position, const float* k) {
  WorkspacePlan plan(1);
  const PageBounds pages(p, page, take, plan);
  const Workspace workspace(plan);
  const index_t rows = std::ssize(position), d = p.head_dim;
  std::vector<float> bounds(static_cast<std::size_t>(pages.floats()));
  std::vector<std::int32_t> lists(static_cast<std::size_t>(p.batch * p.heads * rows * pages.list_size()));
  for (index_t head = 0; head < p.batch * p.heads; ++head) {
    const index_t kv_head = head / p.heads * p.kv_heads + p.kv_head(head % p.heads);
    pages.take_in(0, p.kv_len, {k + kv_head * p.kv_len * d, d}, bounds.data());
    for (index_t row = 0; row < rows; ++row) {
      pages.choose(
          {q + (head * rows + row) * d, d}, 1, [&](index_t) { return position[static_cast<std::size_t>(row)]; }, bounds.data(),
          workspace.of(0, pages.floats_).data(), lists.data() + (head * rows + row) * pages.list_size());
    }
  }
  return lists;
}

}  // namespace attn::kernels
