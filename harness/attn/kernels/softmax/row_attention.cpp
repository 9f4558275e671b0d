#include "attn/kernels/softmax/row_attention.hpp"

#include <algorithm>
#include <array>
#include <new>

#include "attn/core/assert.hpp"
#include "attn/core/round.hpp"
#include "attn/kernels/machine/flush_denormals.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/softmax/row_attention.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Takes from lanes[j] the queries for which from <= key[j] - query <= to fails, or holds if `outside`. query: max_lanes numbers.
void KeepLanes(const int32_t* query, index_t count, const int32_t* key, index_t keys, int32_t from, int32_t to, bool outside,
               uint64_t* lanes) {
  const hn::ScalableTag<int32_t> d;
  const auto width = static_cast<index_t>(hn::Lanes(d));
  for (index_t first = 0; first < count; first += width) {
    const auto own = hn::LoadU(d, query + first);
    // In [key - to, key - from], whose ends are the same for all lanes.
    for (index_t j = 0; j < keys; ++j) {
      const auto below = hn::Lt(own, hn::Set(d, key[j] - to)), above = hn::Gt(own, hn::Set(d, key[j] - from));
      const uint64_t out = mask_bits(d, hn::Or(below, above));
      const uint64_t of_vector = (uint64_t{1} << width) - 1;
      lanes[j] &= ~((outside ? ~out & of_vector : out & of_vector) << first);
    }
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(KeepLanes);

namespace {

// Keys of a batch, at most: as for the engine.
constexpr index_t batch_keys = 160;

alignas(64) constexpr float padding_row[max_head_dim] = {};

// Rows to fetch, handed out evenly over the batches of a group: all in the first, they come faster than lines can be filled, and
// the products wait (Emerald Rapids, 64 queries, 128 keys: a sixth of the time).
class Soon {
 public:
  Soon(std::span<const FetchRows> lists, index_t batches) : lists_(lists), batches_(batches) {
    for (const FetchRows& list : lists) left_ += list.count;
  }

  // `count` rows, between them those of `at_hand`; false if there are no others.
  bool next(index_t count, const std::byte* const* at_hand, const std::byte** to) {
    const index_t share = batches_ > 1 ? (left_ + batches_ - 1) / batches_ : left_, take = std::min(share, count);
    --batches_;
    if (take == 0) return false;
    left_ -= take;
    for (index_t j = 0, due = 0; j < count; ++j) {
      to[j] = at_hand[j];
      due += take;
      if (due < count) continue;
      due -= count;
      while (at_ == lists_.front().count) lists_ = lists_.subspan(1), at_ = 0;
      to[j] = as_bytes(lists_.front().rows.row(at_++));
    }
    return true;
  }

 private:
  std::span<const FetchRows> lists_;
  index_t batches_, left_ = 0, at_ = 0;
};

}  // namespace

struct RowAttention::Batches {
  float* weights;
  Soon soon_k, soon_v;
  index_t limit;  // keys of a batch
  bool guard, any_cut;
  bool wide = false;  // some tile of the group was (tile.hpp): the next most likely are
  std::uint64_t cut;
  index_t count;
  const std::byte *k[batch_keys], *v[batch_keys], *fetch_k[batch_keys], *fetch_v[batch_keys];
  std::uint64_t lanes[batch_keys];
};

RowAttention::RowAttention(index_t head_dim, index_t value_dim, double scale, WorkspacePlan& plan)
    : shape_{head_dim, value_dim}, factor_(static_cast<float>(scale * 1.4426950408889634)) {
  ATTN_ASSERT(head_dim >= 1 && head_dim <= max_head_dim && value_dim >= 1 && value_dim <= max_head_dim);
  for (int vectors = 1; vectors <= 3; ++vectors) ops_[vectors - 1] = &tile_ops(vectors);
  tile_ = plan.per_worker<float>(tile_floats(ops_[2]->lanes, shape_));
  weights_ = plan.per_worker<float>(batch_keys * max_lanes);
  batches_ = plan.per_worker<std::byte>(static_cast<index_t>(sizeof(Batches)));
}

void RowAttention::operator()(const RowGroup& group, const Workspace& workspace, int worker) const {
  const DenormalsAreZero fast;
  // Batches of nearly equal length, as far as rules leave the keys in.
  index_t keys = 0;
  for (const RowKeys& some : group.keys) keys += round_up(some.count, key_step);
  const index_t batches_of_tile = ceil_div(keys, batch_keys);
  const index_t limit = batches_of_tile > 0 ? round_up(ceil_div(keys, batches_of_tile), key_step) : 0;
  const auto tile_for = [&](index_t left) -> const TileOps& { return *ops_[tile_vectors(left, ops_[0]->lanes) - 1]; };
  index_t batches_of_group = 0;
  for (index_t left = group.count; left > 0; left -= tile_for(left).lanes) batches_of_group += batches_of_tile;

  Batches& batches = *new (workspace.of(worker, batches_).data()) Batches{
      workspace.of(worker, weights_).data(), Soon(group.soon_k, batches_of_group), Soon(group.soon_v, batches_of_group), limit};
  for (index_t first = 0; first < group.count;) {
    const index_t left = group.count - first;
    const TileOps& ops = tile_for(left);
    const index_t count = std::min(left, ops.lanes);
    Tile tile = tile_in(workspace.of(worker, tile_).data(), ops.lanes, shape_);
    batches.guard = batches.any_cut = false;
    attend(group, first, count, ops, tile, batches);
    if (batches.any_cut && !ops.finite(tile, shape_)) {
      // An infinity or NaN came out: it may be a value that its lane should not have seen.
      batches.guard = true;
      attend(group, first, count, ops, tile, batches);
    }
    float* rows[max_lanes];
    float* lse[max_lanes];
    for (index_t i = 0; i < count; ++i) {
      rows[i] = group.out.row(first + i);
      if (group.lse.data != nullptr) lse[i] = group.lse.row(first + i);
    }
    ops.store(tile, shape_, rows, count, group.lse.data != nullptr ? lse : nullptr);
    first += count;
  }
}

void RowAttention::attend(const RowGroup& group, index_t first, index_t count, const TileOps& ops, Tile& tile, Batches& b) const {
  const std::byte* queries[max_lanes] = {};
  for (index_t i = 0; i < count; ++i) queries[i] = as_bytes(group.q.row(first + i));
  ops.load(tile, shape_, queries, count, factor_);
  if (group.resume) {
    const float *rows[max_lanes], *lse[max_lanes];
    for (index_t i = 0; i < count; ++i) rows[i] = group.out.row(first + i), lse[i] = group.lse.row(first + i);
    ops.resume(tile, shape_, rows, count, lse);
  }
  tile.wide = tile.wide || b.wide;

  b.count = 0;
  b.cut = 0;
  const auto flush = [&] {
    if (b.count == 0) return;
    KeyBatch batch{
        .k = b.k, .v = b.v, .lanes = b.lanes, .cut = b.cut, .guard = b.guard, .count = b.count, .fetch = {nullptr, nullptr}};
    const bool some_k = b.soon_k.next(b.count, b.k, b.fetch_k), some_v = b.soon_v.next(b.count, b.v, b.fetch_v);
    if (some_k || some_v) {
      batch.fetch[0] = some_k ? b.fetch_k : b.k;
      batch.fetch[1] = some_v ? b.fetch_v : b.v;
      batch.fetch_count = b.count;
    }
    ops.attend(tile, shape_, batch, b.weights);
    b.count = 0;
    b.cut = 0;
  };

  // Lanes past the queries may see what they like: their results are not written.
  const std::uint64_t own = (std::uint64_t{1} << count) - 1;
  alignas(64) std::int32_t numbers[max_lanes] = {};
  for (const RowKeys& keys : group.keys) {
    // Whatever is cut is decided batch by batch, so that a rule's numbers stay in registers.
    for (index_t from = 0; from < keys.count;) {
      const index_t begin = b.count, here = std::min(b.limit - begin, round_up(keys.count - from, key_step));
      const index_t real = std::min(here, keys.count - from);
      if (!keys.rules.empty() || real < here) {
        std::fill_n(b.lanes + begin, here, ~std::uint64_t{0});
        for (const SightRule& rule : keys.rules) {
          std::copy_n(rule.query + first, count, numbers);
          HWY_DYNAMIC_DISPATCH(KeepLanes)(numbers, count, rule.key + from, real, rule.from, rule.to, rule.outside, b.lanes + begin);
        }
        for (index_t j = real; j < here; ++j) b.lanes[begin + j] = 0;
      }
      for (index_t step = 0; step < here; step += key_step) {
        const index_t to = b.count;
        if (!keys.rules.empty() || step + key_step > real) {
          const std::uint64_t* lanes = b.lanes + begin + step;
          std::uint64_t some = 0, every = own;
          for (index_t j = 0; j < key_step; ++j) some |= lanes[j], every &= lanes[j];
          if ((some & own) == 0) continue;
          if (every != own) {
            for (index_t j = 0; j < key_step; ++j) b.lanes[to + j] = lanes[j] | ~own;
            b.cut |= std::uint64_t{1} << (to / key_step);
          }
        }
        for (index_t j = 0; j < key_step; ++j) {
          const index_t key = from + step + j;
          b.k[to + j] = as_bytes(key < keys.count ? keys.k.row(key) : padding_row);
          b.v[to + j] = as_bytes(key < keys.count ? keys.v.row(key) : padding_row);
        }
        b.count += key_step;
      }
      from += here;
      if (b.cut != 0) b.any_cut = true;
      if (b.count == b.limit) flush();
    }
  }
  flush();
  b.wide = tile.wide;
}

}  // namespace attn::kernels
#endif
