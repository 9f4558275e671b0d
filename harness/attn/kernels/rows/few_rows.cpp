#include "attn/kernels/rows/few_rows.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "attn/core/assert.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/rows/few_rows.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/rows/few_rows-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
inline const FewRowsOps* FewRows() { return few_rows::get_ops(); }
}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(FewRows);

const FewRowsOps& few_rows_ops() { return *HWY_DYNAMIC_DISPATCH(FewRows)(); }

namespace {

// Of keys, then of values, as floats: a row's reference moves by blocks, so that these must not depend on how keys are stored. Longer
// leads take more out of DRAM: 8 KB each at best 0.68 (1 query row), 0.66 (2), 0.74 (4) and 0.57 (8) of the bandwidth, 32 KB
// 0.75, 0.75, 0.74 and 0.65 (Zen 4, 256 MB).
constexpr index_t phase_bytes = 32768;

class FewRowsKernel final : public GroupKernel {
 public:
  explicit FewRowsKernel(const GroupShape& shape) : shape_(shape), ops_(few_rows_ops()), attend_(ops_.attend(shape)) {
    const index_t row = shape.latent > 0 ? shape.query_dim() : std::max(shape.head_dim, shape.value_dim);
    const index_t row_bytes = row * static_cast<index_t>(sizeof(float));
    block_keys_ =
        std::clamp<index_t>(phase_bytes / row_bytes / KeyBlock::padding * KeyBlock::padding, KeyBlock::padding, few_rows_block);
    query_floats_ = padded_rows(shape.rows) * query_columns(shape);
    state_floats_ = FewRowsState::floats(shape);
    scratch_floats_ = 2 * padded_rows(shape.rows) * few_rows_block;  // weights, biases
  }

  void load(const std::byte* const* rows, index_t count, double scale, float* queries) const override {
    ATTN_ASSERT(count <= shape_.rows);
    ops_.load(shape_, rows, count, scale, queries);
  }

  void clear(index_t, float* state) const override {
    const FewRowsState s(shape_, state);
    std::fill(state, s.top, 0.0f);
    std::fill_n(s.top, 16 * FewRowsState::groups(shape_), std::numeric_limits<float>::lowest());
  }

  void attend(const float* queries, const GroupRows& rows, const KeyBlocks& keys, float* state, float* scratch) const override {
    const KeyBlock& now = keys.now;
    std::array<std::uint64_t, 64> seen;
    if (now.cut) {
      for (index_t r = 0; r < shape_.rows; ++r) {
        std::uint64_t bits = 0;
        for (std::size_t j = 0; j < static_cast<std::size_t>(now.count); ++j) {
          bits |= std::uint64_t{sees(*now.run[j], rows, rows.query(r), now.position[j])} << j;
        }
        seen[static_cast<std::size_t>(r)] = bits;
      }
    }
    float* const bias = rows.potential != nullptr ? scratch + padded_rows(shape_.rows) * few_rows_block : nullptr;
    if (bias != nullptr) ops_.bias(shape_, now, rows, bias);
    attend_(shape_, queries, keys, now.cut ? seen.data() : nullptr, bias, state, scratch);
  }

  void merge(float* into, const float* from) const override { ops_.merge(shape_, into, from); }

  void store(const float* state, float* const* out, float* const* lse, index_t count) const override {
    ops_.store(shape_, state, out, lse, count);
  }

 private:
  GroupShape shape_;
  const FewRowsOps& ops_;
  FewRowsOps::Attend attend_;
};

}  // namespace

std::unique_ptr<const GroupKernel> few_rows(const GroupShape& shape) {
  ATTN_ASSERT(shape.rows >= 1 && shape.rows <= 64);
  ATTN_ASSERT(shape.latent == 0 || shape.kv_dtype == DType::f32);
  return std::make_unique<FewRowsKernel>(shape);
}

}  // namespace attn::kernels
#endif
