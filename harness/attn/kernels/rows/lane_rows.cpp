#include <algorithm>
#include <array>

#include "attn/core/assert.hpp"
#include "attn/kernels/machine/widen.hpp"
#include "attn/kernels/rows/group_kernel.hpp"
#include "attn/kernels/softmax/tile.hpp"

namespace attn::kernels {

namespace {

constexpr index_t round_up(index_t n, index_t step) { return (n + step - 1) / step * step; }

alignas(64) constexpr float padding_row[max_head_dim] = {};

class LaneRows final : public GroupKernel {
 public:
  explicit LaneRows(const GroupShape& shape)
      : shape_{shape.head_dim, shape.value_dim},
        ops_(tile_ops(static_cast<int>((shape.rows + tile_ops(1).lanes - 1) / tile_ops(1).lanes))),
        dtype_(shape.kv_dtype),
        lanes_(round_up(ops_.lanes, 16)) {
    block_keys_ = KeyBlock::capacity;
    query_floats_ = round_up(ops_.lanes * shape.head_dim, 16) + lanes_;
    state_floats_ = sums + 2 * lanes_ + round_up(ops_.lanes * shape.value_dim, 16);
    scratch_floats_ = lanes_ + block_keys_ * lanes_;
    if (dtype_ != DType::f32) scratch_floats_ += block_keys_ * (shape.head_dim + shape.value_dim);
  }

  void load(const std::byte* const* rows, index_t count, double scale, float* queries) const override {
    Tile tile{};
    tile.qt = queries;
    tile.minus_ref = queries + round_up(ops_.lanes * shape_.head_dim, 16);  // not used: a state has its own
    ops_.load(tile, shape_, rows, count, static_cast<float>(scale * 1.4426950408889634));
  }

  void clear(index_t count, float* state) const override {
    head(state) = {.unset = (std::uint64_t{1} << count) - 1, .fresh = true};
    std::fill_n(state + sums, lanes_, 0.0f);
  }

  void attend(const float* queries, const GroupRows& rows, const KeyBlocks& keys, float* state, float* scratch) const override {
    const KeyBlock &now = keys.now, &next = keys.next;
    Tile tile = tile_of(state);
    tile.qt = const_cast<float*>(queries);  // only `load` writes there
    tile.batch_sum = scratch;
    std::array<const std::byte*, KeyBlock::capacity> k, v;
    std::array<std::uint64_t, KeyBlock::capacity> lanes;
    const index_t count = round_up(now.count, key_step);
    std::uint64_t cut = 0;
    for (index_t j = 0; j < count; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const bool real = j < now.count;
      k[at] = real ? now.k[at] : as_bytes(padding_row);
      v[at] = real ? now.v[at] : as_bytes(padding_row);
    }
    if (dtype_ != DType::f32) {
      float* const floats = scratch + lanes_ + block_keys_ * lanes_;
      widen_rows(k, now.count, shape_.head_dim, floats);
      widen_rows(v, now.count, shape_.value_dim, floats + block_keys_ * shape_.head_dim);
    }
    if (now.cut) {
      for (index_t j = 0; j < now.count; ++j) lanes[static_cast<std::size_t>(j)] = sight(rows, now, j, cut);
    } else if (now.count < count) {
      std::fill_n(lanes.begin() + (count - key_step), key_step, ~std::uint64_t{0});
    }
    if (now.count < count) {
      std::fill(lanes.begin() + now.count, lanes.begin() + count, std::uint64_t{0});
      cut |= std::uint64_t{1} << (count / key_step - 1);
    }
    const index_t soon = std::min(count, next.count / key_step * key_step);
    const KeyBatch batch{.k = k.data(),
                         .v = v.data(),
                         .lanes = lanes.data(),
                         .cut = cut,
                         .guard = now.cut,  // at the ends of a list only, so it may be slow
                         .count = count,
                         .fetch = {next.k.data(), next.v.data()},
                         .fetch_count = soon};
    ops_.attend(tile, shape_, batch, scratch + lanes_);
    head(state) = {.unset = tile.unset, .far = tile.far, .fresh = tile.fresh, .wide = tile.wide};
  }

  void merge(float* into, const float* from) const override {
    Tile tile = tile_of(into);
    ops_.merge(tile, shape_, tile_of(const_cast<float*>(from)));
    head(into) = {.unset = tile.unset, .far = tile.far, .fresh = tile.fresh, .wide = tile.wide};
  }

  void store(const float* state, float* const* out, float* const* lse, index_t count) const override {
    ops_.store(tile_of(const_cast<float*>(state)), shape_, out, count, lse);
  }

 private:
  struct Head {
    std::uint64_t unset, far = 0;
    bool fresh, wide = false;
  };
  static constexpr index_t sums = 16;  // floats of a Head, rounded up

  static Head& head(float* state) { return *reinterpret_cast<Head*>(state); }

  Tile tile_of(float* state) const {
    Tile tile{};
    tile.minus_ref = state + sums;
    tile.sum = state + sums + lanes_;
    tile.ot = state + sums + 2 * lanes_;
    tile.unset = head(state).unset;
    tile.fresh = head(state).fresh;
    tile.wide = head(state).wide;
    tile.far = head(state).far;
    return tile;
  }

  // Which lanes see key j; marks its step as cut where not all do. Lanes past the rows may see what they like.
  static std::uint64_t sight(const GroupRows& rows, const KeyBlock& keys, index_t j, std::uint64_t& cut) {
    const auto at = static_cast<std::size_t>(j);
    std::uint64_t seen = ~std::uint64_t{0};
    for (index_t i = 0; i < rows.count; ++i) {
      if (!sees(*keys.run[at], rows, rows.query(i), keys.position[at])) seen &= ~(std::uint64_t{1} << i);
    }
    if (seen != ~std::uint64_t{0}) cut |= std::uint64_t{1} << (j / key_step);
    return seen;
  }

  void widen_rows(std::array<const std::byte*, KeyBlock::capacity>& rows, index_t count, index_t width, float* to) const {
    widen(dtype_, rows.data(), count, width, to, width);
    for (index_t j = 0; j < count; ++j) rows[static_cast<std::size_t>(j)] = as_bytes(to + j * width);
  }

  TileShape shape_;
  const TileOps& ops_;
  DType dtype_;
  index_t lanes_;  // rounded up
};

}  // namespace

std::unique_ptr<const GroupKernel> lane_rows(const GroupShape& shape) {
  ATTN_ASSERT(shape.rows <= most_lane_rows());
  return std::make_unique<LaneRows>(shape);
}

index_t most_lane_rows() { return tile_ops(3).lanes; }

}  // namespace attn::kernels
