#include "attn/variant/door.hpp"

#include <algorithm>

#include "attn/core/round.hpp"
#include "attn/exec/arena.hpp"
#include "attn/kernels/machine/widen.hpp"

namespace attn {

namespace {

constexpr index_t rows_per_task = 64;

std::array<const Array*, 3> inputs_of(const Arrays& a) { return {&a.q, &a.k, &a.v}; }

// Rows of one head.
void widen_rows(const Array& from, index_t head, index_t first, index_t count, const Array& to) {
  const index_t b = head / from.extent(1), h = head % from.extent(1), width = from.extent(3);
  const kernels::StoredRows stored = kernels::rows_of_head(from, b, h);
  std::array<const std::byte*, rows_per_task> rows;
  for (index_t i = 0; i < count; ++i) rows[static_cast<std::size_t>(i)] = stored.row(first + i);
  kernels::widen(from.dtype(), rows.data(), count, width, to.f32_out()[b][h].row(first), width);
}

}  // namespace

Problem Door::inside(Problem p, const TakenTypes& taken, bool folds) {
  const auto takes = [&](std::span<const DType> types, DType dtype) {
    const bool floats = p.pass == Pass::forward_backward || (folds && p.pass == Pass::decode);
    return !floats && std::ranges::find(types, dtype) != types.end();
  };
  if (!takes(taken.q, p.dtype)) p.dtype = DType::f32;
  if (!takes(taken.kv, p.kv_dtype)) p.kv_dtype = DType::f32;
  return p;
}

Door::Door(const Problem& p, const TakenTypes& taken, bool reads_k, bool reads_v, bool folds, WorkspacePlan& plan)
    : inside_(inside(p, taken, folds)), read_{true, reads_k, reads_v} {
  const bool copies_kv = inside_.kv_dtype != p.kv_dtype;
  copied_ = {inside_.dtype != p.dtype, copies_kv, copies_kv};  // or, unread, left out
  const bool in_parts = folds && p.pass == Pass::decode;
  const index_t queries = in_parts ? std::min(p.kv_len, most_at_once) : p.q_len;
  const index_t keys = in_parts ? queries : p.kv_len;
  const std::array<index_t, 3> counts = {p.batch * p.heads * queries * p.head_dim, p.batch * p.kv_heads * keys * p.head_dim,
                                         p.batch * p.kv_heads * keys * p.value_dim};
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (copied_[i] && read_[i]) memory_[i] = plan.shared<float>(counts[i]);
  }
}

Array Door::copy_of(const Array& given, std::size_t which, const Workspace& workspace) const {
  if (!read_[which] || given.empty()) return {};
  if (!copied_[which]) return given;
  const std::span<float> memory = workspace.shared(memory_[which]);
  ATTN_ASSERT(given.size() <= std::ssize(memory));
  return View<float, 4>(memory.data(), {given.extent(0), given.extent(1), given.extent(2), given.extent(3)});
}

Arrays Door::as_widened(const Arrays& given, const Workspace& workspace) const {
  Arrays inside = given;
  inside.q = copy_of(given.q, 0, workspace);
  inside.k = copy_of(given.k, 1, workspace);
  inside.v = copy_of(given.v, 2, workspace);
  return inside;
}

Arrays Door::widened(const Arrays& given, const Workspace& workspace) const {
  const Arrays inside = as_widened(given, workspace);
  const auto from = inputs_of(given), to = inputs_of(inside);
  std::array<index_t, 4> before{};  // tasks of the arrays that precede one
  const auto parts = [](const Array& array) { return ceil_div(array.extent(2), rows_per_task); };
  for (std::size_t i = 0; i < 3; ++i) {
    const bool copy = copied_[i] && !to[i]->empty();
    before[i + 1] = before[i] + (copy ? from[i]->extent(0) * from[i]->extent(1) * parts(*from[i]) : 0);
  }
  parallel_tasks(before[3], [&](index_t task, int) {
    const std::size_t i = task < before[1] ? 0 : task < before[2] ? 1 : 2;
    const index_t own = task - before[i], first = own % parts(*from[i]) * rows_per_task;
    widen_rows(*from[i], own / parts(*from[i]), first, std::min(rows_per_task, from[i]->extent(2) - first), *to[i]);
  });
  return inside;
}

}  // namespace attn
