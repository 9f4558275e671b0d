#include "attn/kernels/dense/weighted_sum.hpp"

#include <algorithm>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"
#include "attn/kernels/dense/rows.hpp"

namespace attn::kernels {

namespace {

// A block of 96 x 128 weights, 48 KB, stays near while it meets the values of every batch item.
constexpr index_t block_keys = 128;
constexpr index_t table_rows = 96;

// A table gives 96 rows at a time (with 192 synth_random at N=2048, B=1 falls from 0.61 to 0.50 of peak), written rows as many as stay
// in L2 until they are read again, 120 at N=2048: the values are read once for each block (aft: 0.63 at 96, 0.67). Below 24
// rows that would cost more than L2 saves.
index_t rows_of_block(index_t keys, bool scratch) {
  constexpr index_t floats = 1 << 18;
  return scratch ? std::clamp<index_t>(floats / keys / 12 * 12, 24, WeightedSum::max_rows) : table_rows;
}

}  // namespace

WeightedSum::WeightedSum(const Problem& p, Kind kind, Sharing sharing, WorkspacePlan& workspace)
    : p_(p),
      kind_(kind),
      sharing_(sharing),
      rows_(std::clamp<index_t>(p.q_len, 1, rows_of_block(p.kv_len, kind != Kind::table))),
      scratch_(workspace.per_worker<float>(kind == Kind::table ? 0 : rows_ * p.kv_len)) {
  if (!workspace.training() || kind != Kind::softmax) return;
  backward_rows_ = rows_of_block(2 * p.kv_len, true);
  backward_stride_ = round_up(p.kv_len, 16) + 16;  // rows a power of two apart would throw each other out when read by columns
  transposed_ = workspace.shared<float>(p.batch * p.kv_heads * p.value_dim * p.kv_len);
  backward_scratch_ = workspace.per_worker<float>(2 * backward_rows_ * backward_stride_);
}

WeightBlock WeightedSum::block_of(index_t batch, index_t head, index_t first, index_t rows, Into to, int worker) const {
  const index_t position = p_.query_position(first);
  return {.batch = batch,
          .head = head,
          .first = first,
          .rows = rows,
          .keys = p_.causal ? std::clamp<index_t>(position + rows, 0, p_.kv_len) : p_.kv_len,
          .position = position,
          .to = to,
          .worker = worker};
}

void WeightedSum::run(const View<const float, 4>& values, const View<float, 4>& out, const Workspace& workspace,
                      Weights weights) const {
  const index_t blocks = (p_.q_len + rows_ - 1) / rows_;
  const index_t heads = (sharing_ == Sharing::all ? 1 : p_.heads) * (sharing_ == Sharing::none ? p_.batch : 1);
  parallel_tasks(heads * blocks, [&](index_t task, int worker) {
    // Blocks of a head one after the other: its values stay in L2. Causal ones end sooner: the longest first.
    const index_t first = (blocks - 1 - task % blocks) * rows_, rows = std::min(rows_, p_.q_len - first);
    const WeightBlock block = block_of(task / blocks / p_.heads, task / blocks % p_.heads, first, rows,
                                       {workspace.of(worker, scratch_).data(), p_.kv_len}, worker);
    if (block.keys == 0) return multiply(block, {}, values, out);
    const Rows given = weights(block);
    if (kind_ != Kind::table) finish(block, given);
    multiply(block, kind_ == Kind::table ? given : block.to, values, out);
  });
}

// What stands in block.to from here on may be multiplied: zeros for hidden keys.
void WeightedSum::finish(const WeightBlock& block, Rows from) const {
  if (!p_.causal) {
    if (kind_ == Kind::softmax) softmax(block.rows, block.keys, from, 1, block.to);
    return;
  }
  for (index_t i = 0; i < block.rows; ++i) {
    const index_t seen = std::clamp<index_t>(block.position + i + 1, 0, block.keys);
    float* row = block.to.data + i * block.to.stride;
    if (kind_ == Kind::softmax && seen > 0) softmax(1, seen, {from.data + i * from.stride, from.stride}, 1, {row, block.to.stride});
    std::fill(row + seen, row + block.keys, 0.0f);
  }
}

void WeightedSum::multiply(const WeightBlock& block, Rows weights, const View<const float, 4>& values,
                           const View<float, 4>& out) const {
  // The heads that have these weights, numbered over batch items and heads.
  const index_t first = block.batch * p_.heads + block.head, step = sharing_ == Sharing::batch ? p_.heads : 1;
  const index_t end = sharing_ == Sharing::none ? first + 1 : p_.batch * p_.heads;
  const auto values_of = [&](index_t head, index_t key) {
    const auto v = values[head / p_.heads][p_.kv_head(head % p_.heads)];
    return Fetch{v.row(key), v.stride(0), std::min(block_keys, p_.kv_len - key), p_.value_dim};
  };
  for (index_t j = 0; j == 0 || j < block.keys; j += block_keys) {
    for (index_t head = first; head < end; head += step) {
      // What comes next is fetched meanwhile: the values of the next product, and of a table each head's part of the next
      // block, whose elements are read too late for the hardware to see a stream coming (synth_random, N=2048: 0.53 of peak
      // without, at B=1).
      const index_t after = j + block_keys < block.keys ? j + block_keys : 0;
      const index_t part = round_up(block_keys / ((end - first + step - 1) / step), 16), column = (head - first) / step * part;
      const bool more = kind_ == Kind::table && after > 0 && column < block_keys;
      const Fetch table = more ? Fetch{weights.data + after + column, weights.stride, block.rows,
                                       std::clamp<index_t>(block.keys - after - column, 0, part)}
                               : Fetch{};
      const Fetch v = values_of(head, j);
      const auto o = out[head / p_.heads][head % p_.heads];
      gemm(block.rows, p_.value_dim, std::min(block_keys, block.keys - j), {weights.data + j, weights.stride}, {v.data, v.stride},
           {o.row(block.first), o.stride(0)},
           {.add = j > 0,
            .lower = p_.causal ? Lower::left : Lower::none,
            .diagonal = block.position - j,
            .fetch = {head + step < end ? values_of(head + step, j) : values_of(first, after), table}});
    }
  }
}

void WeightedSum::backward(const View<const float, 4>& values, const View<const float, 4>& d_out, const View<float, 4>& d_v,
                           const Workspace& workspace, Weights weights, LogitGradient logits) const {
  ATTN_ASSERT(kind_ == Kind::softmax && sharing_ != Sharing::all && p_.heads == p_.kv_heads && p_.q_len == p_.kv_len);
  const index_t n = p_.q_len, dv = p_.value_dim;
  const View<float, 4> transposed(workspace.shared(transposed_).data(), {p_.batch, p_.heads, dv, n});
  transpose_heads(values, transposed);
  parallel_tasks(p_.heads, [&](index_t h, int worker) {
    const Into own{workspace.of(worker, backward_scratch_).data(), backward_stride_};
    const Into d_weights{own.data + backward_rows_ * own.stride, own.stride};
    // Batch items in turn or, where they share the weights, together.
    const index_t together = sharing_ == Sharing::batch ? p_.batch : 1;
    for (index_t item = 0; item < p_.batch; item += together) {
      for (index_t end = n; end > 0;) {
        const index_t rows = (end - 1) % backward_rows_ + 1, first = end - rows;
        const WeightBlock block = block_of(item, h, first, rows, own, worker);
        finish(block, weights(block));
        for (index_t b = item; b < item + together; ++b) {
          const auto d_rows = d_out[b][h];
          const auto to = d_v[b][h];
          const Rows d_block{d_rows.row(first), d_rows.stride(0)};
          gemm(rows, block.keys, dv, {d_block.data, d_block.stride}, {transposed[b][h].row(0), n}, d_weights, {.add = b > item});
          gemm(block.keys, dv, rows, {own.data, 1, own.stride}, d_block, {to.row(0), to.stride(0)}, {.add = end < n});
        }
        softmax_gradient(rows, block.keys, own, d_weights);
        logits(block, d_weights);
        end = first;
      }
    }
  });
}

void transpose_heads(const View<const float, 4>& x, const View<float, 4>& to) {
  constexpr index_t panel = 256;  // rows of x
  const index_t heads = x.extent(1), m = x.extent(2), panels = (m + panel - 1) / panel;
  parallel_tasks(x.extent(0) * heads * panels, [&](index_t task, int) {
    const index_t first = task % panels * panel, head = task / panels % heads, batch = task / panels / heads;
    const auto from = x[batch][head];
    transpose(std::min(panel, m - first), x.extent(3), {from.row(first), from.stride(0)},
              {to[batch][head].data_handle() + first, m});
  });
}

void clear_heads(const View<float, 4>& x) {
  parallel_tasks(x.extent(0) * x.extent(1), [&](index_t task, int) {
    const auto head = x[task / x.extent(1)][task % x.extent(1)];
    for (index_t i = 0; i < head.extent(0); ++i) std::fill_n(head.row(i), head.extent(1), 0.0f);
  });
}

}  // namespace attn::kernels
