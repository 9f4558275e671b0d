// The tile kernel; included once per instruction set.
#if defined(ATTN_KERNELS_TILE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_TILE_INL
#undef ATTN_KERNELS_TILE_INL
#else
#define ATTN_KERNELS_TILE_INL
#endif
#include <hwy/contrib/math/math-inl.h>

#include <algorithm>
#include <cmath>

#include "attn/kernels/dense/transpose-inl.hpp"
#include "attn/kernels/softmax/tile_accumulate-inl.hpp"
#include "attn/kernels/softmax/tile_reference-inl.hpp"
#include "attn/kernels/softmax/tile_weigh-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <Scoring kScoring, int W>
void attend(Tile& t, const TileShape& shape, const KeyBatch& batch, float* p) {
  const F d;
  const std::uint64_t first = t.unset != 0 ? t.unset & seeing_lanes(batch) : 0;
  if (!t.wide) weigh<kScoring, W>(t, shape.head_dim, batch, p);
  if (HWY_UNLIKELY(is_off<W>(t, first))) weigh_again<kScoring, W>(t, shape, batch, first, p);
  t.unset &= ~first;
  accumulate<W>(t, shape, batch, p);
  for (int w = 0; w < W; ++w) {
    const V batch_sum = hn::Load(d, t.batch_sum + w * L);
    hn::Store(t.fresh ? batch_sum : hn::Add(hn::Load(d, t.sum + w * L), batch_sum), d, t.sum + w * L);
  }
  t.fresh = false;
}

inline std::uint64_t first_lanes(index_t count) { return (std::uint64_t{1} << count) - 1; }

template <int W>
void load(Tile& t, const TileShape& shape, const std::byte* const* rows, index_t count, float factor) {
  const F d;
  HWY_ALIGN static constexpr float zeros[max_head_dim] = {};
  const float* source[max_lanes];
  for (index_t i = 0; i < W * L; ++i) source[i] = i < count ? floats_at(rows[i]) : zeros;
  for (int w = 0; w < W; ++w) {
    rows_to_lanes(source + w * L, shape.head_dim, hn::Set(d, factor), t.qt + w * L, W * L);
    hn::Store(hn::Zero(d), d, t.minus_ref + w * L);
  }
  t.unset = first_lanes(count);
  t.fresh = true;
  t.wide = false;
  t.far = 0;
}

template <int W>
void resume(Tile& t, const TileShape& shape, const float* const* rows, index_t count, const float* const* lse) {
  const F d;
  HWY_ALIGN static constexpr float zeros[max_head_dim] = {};
  HWY_ALIGN float log_sum[max_lanes] = {};
  const float* source[max_lanes];
  std::uint64_t set = 0;
  for (index_t i = 0; i < W * L; ++i) {
    const bool seen = i < count && *lse[i] != -infinity;
    source[i] = seen ? rows[i] : zeros;
    if (!seen) continue;
    log_sum[i] = *lse[i];
    set |= std::uint64_t{1} << i;
  }
  for (int w = 0; w < W; ++w) {
    const V log = hn::Load(d, log_sum + w * L), factor = hn::Set(d, log2_e), minus_ref = hn::Neg(hn::Round(hn::Mul(log, factor)));
    const V sum = hn::IfThenElseZero(lane_mask(set, w), exp2_lanes(hn::MulAdd(log, factor, minus_ref)));
    hn::Store(minus_ref, d, t.minus_ref + w * L);
    hn::Store(sum, d, t.sum + w * L);
    rows_to_lanes(source + w * L, shape.value_dim, sum, t.ot + w * L, W * L);
    t.far |= mask_bits(d, hn::Gt(hn::Abs(minus_ref), hn::Set(d, largest_score))) << (w * L);
  }
  t.unset &= ~set;
  t.wide = t.far != 0;
  t.fresh = false;
}

template <int W>
bool finite(const Tile& t, const TileShape& shape) {
  const F d;
  V worst[W];
  for (int w = 0; w < W; ++w) worst[w] = hn::Zero(d);
  if (!t.fresh) {
    for (index_t x = 0; x < shape.value_dim; ++x) {
      for (int w = 0; w < W; ++w) worst[w] = hn::MulAdd(hn::Load(d, t.ot + (x * W + w) * L), hn::Zero(d), worst[w]);
    }
  }
  for (int w = 1; w < W; ++w) worst[0] = hn::Add(worst[0], worst[w]);
  return hn::AllTrue(d, hn::Eq(worst[0], worst[0]));
}

template <int W>
void merge(Tile& t, const TileShape& shape, const Tile& other) {
  const F d;
  if (other.fresh) return;
  HWY_ALIGN float own[max_lanes], others[max_lanes];
  for (index_t i = 0; i < W * L; ++i) {
    const bool mine = !t.fresh && (t.unset >> i & 1) == 0;
    const bool theirs = (other.unset >> i & 1) == 0;
    const float minus_ref = mine && theirs ? std::min(t.minus_ref[i], other.minus_ref[i])
                            : mine         ? t.minus_ref[i]
                                           : other.minus_ref[i];
    own[i] = mine ? std::exp2(minus_ref - t.minus_ref[i]) : 0.0f;
    others[i] = theirs ? std::exp2(minus_ref - other.minus_ref[i]) : 0.0f;
    t.minus_ref[i] = minus_ref;
  }
  const auto add = [&](float* to, const float* from, index_t n) HWY_ATTR {
    for (index_t x = 0; x < n; ++x) {
      for (int w = 0; w < W; ++w) {
        const index_t at = (x * W + w) * L;
        const V theirs = hn::Mul(hn::Load(d, from + at), hn::Load(d, others + w * L));
        hn::Store(t.fresh ? theirs : hn::MulAdd(hn::Load(d, to + at), hn::Load(d, own + w * L), theirs), d, to + at);
      }
    }
  };
  add(t.sum, other.sum, 1);
  add(t.ot, other.ot, shape.value_dim);
  t.unset &= other.unset;
  t.far |= other.far;
  t.wide = t.wide || other.wide;
  t.fresh = false;
}

template <int W>
void store(const Tile& t, const TileShape& shape, float* const* rows, index_t count, float* const* lse) {
  HWY_ALIGN float spare[max_head_dim];
  HWY_ALIGN float factor[max_lanes], log_sum[max_lanes] = {};
  float* target[max_lanes];
  if (lse != nullptr && !t.fresh) {
    const F d;
    for (int w = 0; w < W; ++w) hn::Store(hn::Log2(d, hn::Load(d, t.sum + w * L)), d, log_sum + w * L);
  }
  for (index_t i = 0; i < W * L; ++i) {
    const bool seen = i < count && (t.unset >> i & 1) == 0 && !t.fresh;
    target[i] = seen ? rows[i] : spare;
    factor[i] = seen ? 1.0f / t.sum[i] : 0.0f;
    if (i >= count) continue;
    if (!seen) std::fill_n(rows[i], shape.value_dim, 0.0f);
    if (lse != nullptr) *lse[i] = seen ? (log_sum[i] - t.minus_ref[i]) / log2_e : -infinity;
  }
  if (t.fresh) return;
  for (int w = 0; w < W; ++w) {
    lanes_to_rows(t.ot + w * L, W * L, shape.value_dim, factor + w * L, target + w * L);
  }
}

template <Scoring kScoring, int W>
inline constexpr TileOps ops_of{W * L, load<W>, resume<W>, attend<kScoring, W>, finite<W>, merge<W>, store<W>};

template <Scoring kScoring>
inline const TileOps* ops_for(int vectors) {
  return vectors == 1 ? &ops_of<kScoring, 1> : vectors == 2 ? &ops_of<kScoring, 2> : &ops_of<kScoring, 3>;
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
