#include "attn/kernels/softmax/latent_rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"
#include "attn/exec/arena.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

namespace {

constexpr index_t rows_together = 192;              // of a task: four wide tiles meet a chunk
constexpr index_t chunk_floats = index_t{1} << 16;  // of latents laid side by side: 256 KB stay in L2 while the tiles pass
constexpr float none = -std::numeric_limits<float>::infinity();

}  // namespace

LatentRows::LatentRows(const Problem& p, index_t shared, WorkspacePlan& plan)
    : p_(p), shared_(shared), attention_(p.head_dim + p.value_dim, p.head_dim + p.value_dim - shared, p.scale(), plan) {
  ATTN_ASSERT(shared >= 0 && shared < p.head_dim && width() <= max_head_dim);
  chunk_ = std::min(round_up(p.kv_len, key_step), chunk_floats / width() / key_step * key_step);
  row_tasks_ = ceil_div(rows_of_group(), rows_together);
  const index_t tasks = p.batch * p.kv_heads * row_tasks_, threads = plan.threads();
  if (threads > 1 && tasks < 2 * threads) parts_ = std::clamp<index_t>(ceil_div(2 * threads, tasks), 1, ceil_div(p.kv_len, chunk_));
  part_keys_ = round_up(ceil_div(p.kv_len, parts_), chunk_);
  parts_ = ceil_div(p.kv_len, part_keys_);
  packed_ = plan.per_worker<float>(chunk_ * width());
  parts_memory_ = plan.shared<float>(parts_ * p.batch * p.kv_heads * rows_of_group() * (latent() + 1));
  numbers_ = plan.per_worker<std::int32_t>(rows_together);
  // Positions of queries may lie before the first key.
  const index_t before = std::max<index_t>(0, -p.query_position(0));
  positions_ = plan.table<std::int32_t>(p.kv_len + before, [](std::span<std::int32_t> to) { std::iota(to.begin(), to.end(), 0); });
}

LatentRows::Task LatentRows::task(index_t number) const {
  const index_t part = number % parts_, group = number / parts_ % row_tasks_, head = number / parts_ / row_tasks_;
  const index_t first = group * rows_together;
  return {head / p_.kv_heads, head % p_.kv_heads, first, std::min(rows_together, rows_of_group() - first), part};
}

// What a part found for a row: a sum of `latent` numbers, then ln of its weights' sum.
float* LatentRows::part_of(const Workspace& workspace, index_t part, index_t kv_head, index_t row) const {
  const index_t rows = p_.batch * p_.kv_heads * rows_of_group();
  return workspace.shared(parts_memory_).data() + (part * rows + kv_head * rows_of_group() + row) * (latent() + 1);
}

void LatentRows::run(const Arrays& a, const Workspace& workspace) const {
  parallel_tasks(p_.batch * p_.kv_heads * row_tasks_ * parts_,
                 [&](index_t number, int worker) { attend(a, task(number), workspace, worker); });
  constexpr index_t together = 64;
  const index_t rows = p_.batch * p_.kv_heads * rows_of_group();
  parallel_tasks(ceil_div(rows, together), [&](index_t number, int) {
    for (index_t row = number * together; row < std::min(rows, (number + 1) * together); ++row) merge(a, workspace, row);
  });
}

void LatentRows::pack(const Arrays& a, const Task& t, index_t first, index_t count, Into to) const {
  const auto k = a.k[t.batch][t.kv_head], v = a.v[t.batch][t.kv_head];
  const index_t own = p_.head_dim - shared_;
  copy(count, own, {k.row(first), k.stride(0)}, to);
  copy(count, p_.value_dim, {v.row(first), v.stride(0)}, {to.data + own, to.stride});
  copy(count, shared_, {k.row(first) + own, k.stride(0)}, {to.data + latent(), to.stride});
}

void LatentRows::attend(const Arrays& a, const Task& t, const Workspace& workspace, int worker) const {
  const index_t heads = p_.heads / p_.kv_heads, kv_head = t.batch * p_.kv_heads + t.kv_head, size = latent() + 1;
  float* const found = part_of(workspace, t.part, kv_head, t.first);
  for (index_t i = 0; i < t.rows; ++i) {
    std::fill_n(found + i * size, latent(), 0.0f);
    found[i * size + latent()] = none;
  }
  const index_t before = std::max<index_t>(0, -p_.query_position(0));
  std::int32_t* const row_number = workspace.of(worker, numbers_).data();
  for (index_t i = 0; i < t.rows; ++i) row_number[i] = static_cast<std::int32_t>(p_.query_position((t.first + i) / heads) + before);
  const index_t lowest = p_.query_position(t.first / heads), highest = p_.query_position((t.first + t.rows - 1) / heads);
  const index_t end = std::min({p_.kv_len, (t.part + 1) * part_keys_, p_.causal ? highest + 1 : p_.kv_len});
  const Into packed{workspace.of(worker, packed_).data(), width()};
  const auto q = a.q[t.batch];
  // Query i of the group's heads: rows of one array whose heads lie q.stride(0) apart.
  std::int32_t rows[rows_together];
  for (index_t i = 0; i < t.rows; ++i) {
    const index_t row = t.first + i, head = t.kv_head * heads + row % heads;
    rows[i] = static_cast<std::int32_t>(head * (q.stride(0) / q.stride(1)) + row / heads);
  }
  ATTN_ASSERT(q.stride(0) % q.stride(1) == 0);
  for (index_t first = t.part * part_keys_; first < end; first += chunk_) {
    const index_t count = std::min(chunk_, end - first);
    pack(a, t, first, count, packed);
    const SightRule causal{row_number, workspace.shared(positions_).data() + first + before, SightRule::lowest, 0};
    const bool cut = p_.causal && lowest < first + count - 1;
    const RowKeys keys{
        {packed.data, packed.stride}, {packed.data, packed.stride}, count, {&causal, static_cast<std::size_t>(cut ? 1 : 0)}};
    attention_({.q = {q.data_handle(), q.stride(1), rows},
                .out = {found, size},
                .count = t.rows,
                .keys = {&keys, 1},
                .lse = {found + latent(), size},
                .resume = first > t.part * part_keys_},
               workspace, worker);
  }
}

// In order of the parts.
void LatentRows::merge(const Arrays& a, const Workspace& workspace, index_t row) const {
  const index_t heads = p_.heads / p_.kv_heads, kv_head = row / rows_of_group(), own = row % rows_of_group();
  const index_t head = kv_head % p_.kv_heads * heads + own % heads;
  float* const to = a.out[kv_head / p_.kv_heads][head].row(own / heads);
  double top = static_cast<double>(none), sum = 0;
  for (index_t part = 0; part < parts_; ++part)
    top = std::max(top, static_cast<double>(part_of(workspace, part, kv_head, own)[latent()]));
  std::fill_n(to, latent(), 0.0f);
  if (!(top > static_cast<double>(none))) {
    if (top != top) std::fill_n(to, latent(), std::numeric_limits<float>::quiet_NaN());
    return;
  }
  const auto weight = [&](index_t part) {
    return std::exp(static_cast<double>(part_of(workspace, part, kv_head, own)[latent()]) - top);
  };
  for (index_t part = 0; part < parts_; ++part) sum += weight(part);
  for (index_t part = 0; part < parts_; ++part)
    add(1, latent(), {part_of(workspace, part, kv_head, own), latent()}, {to, latent()}, static_cast<float>(weight(part) / sum));
}

}  // namespace attn::kernels
