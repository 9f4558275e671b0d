// From keys to weights: the first half of a batch; included once per instruction set.
#if defined(ATTN_KERNELS_TILE_WEIGH_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_TILE_WEIGH_INL
#undef ATTN_KERNELS_TILE_WEIGH_INL
#else
#define ATTN_KERNELS_TILE_WEIGH_INL
#endif
#include <hwy/highway.h>

#include "attn/kernels/machine/exp-inl.hpp"
#include "attn/kernels/softmax/tile_product-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Scores and weights of R keys, in W vectors of lanes out of the tile's kTile: `t`'s from vector `from` on. With kCut, lanes[i]
// says which lanes see key i; the weights of the others are zero.
template <int R, int W, int kTile, bool kCut, bool kFetch>
HWY_INLINE void weigh_rows(Tile& t, index_t head_dim, const float* const* k, const std::uint64_t* lanes, int from, float* p,
                           const float* const* fetch) {
  const F d;
  V c[R][W];
  {
    V start[W];
    load_row<W>(t.minus_ref + from * L, start);
    ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = start[w];
  }
  multiply_rows<R, W, kTile, kFetch>(k, t.qt + from * L, head_dim, c, fetch);
  V total[W];
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) {
    V e = exp2_lanes(c[i][w]);
    if constexpr (kCut) e = hn::IfThenElseZero(lane_mask(lanes[i], from + w), e);
    hn::Store(e, d, p + (i * kTile + from + w) * L);
    total[w] = i == 0 ? e : hn::Add(total[w], e);
  }
  ATTN_UNROLL for (int w = 0; w < W; ++w) {
    float* sum = t.batch_sum + (from + w) * L;
    hn::Store(hn::Add(hn::Load(d, sum), total[w]), d, sum);
  }
}

// Rows of a step that stay in registers together: as many accumulators as leave room for W lane vectors and a broadcast.
template <int W>
inline constexpr int step_rows = HWY_TARGET == HWY_AVX3 ? 8
                                 : W == 1               ? 8
                                                        : 4;

template <int W, int kTile, bool kCut, bool kFetch>
HWY_INLINE void weigh_step(Tile& t, index_t head_dim, const float* const* k, const std::uint64_t* lanes, int from, float* p,
                           const float* const* fetch) {
  constexpr int R = step_rows<W>;
  for (int i = 0; i < key_step; i += R) {
    weigh_rows<R, W, kTile, kCut, kFetch>(t, head_dim, k + i, lanes + i, from, p + L * kTile * i, kFetch ? fetch + i : nullptr);
  }
}

template <int W>
HWY_NOINLINE void weigh_fetching_step(Tile& t, index_t head_dim, const float* const* k, float* p, const float* const* fetch) {
  weigh_step<W, W, false, true>(t, head_dim, k, nullptr, 0, p, fetch);
}

// Vectors first..end-1 of the tile see keys of a step; a window's edge leaves whole vectors out.
struct VectorRange {
  int first, end;
};

template <int W>
HWY_INLINE VectorRange seeing_vectors(const std::uint64_t* lanes) {
  std::uint64_t seen = 0;
  for (index_t i = 0; i < key_step; ++i) seen |= lanes[i];
  constexpr std::uint64_t vector = (std::uint64_t{1} << L) - 1;
  int first = 0, end = W;
  while (first < W && (seen >> (first * L) & vector) == 0) ++first;
  while (end > first && (seen >> ((end - 1) * L) & vector) == 0) --end;
  return {first, end};
}

// A step that some lanes do not see. What whole vectors do not see is not computed for them.
template <int W, bool kFetch>
HWY_NOINLINE void weigh_cut_step(Tile& t, index_t head_dim, const float* const* k, const std::uint64_t* lanes, float* p,
                                 const float* const* fetch) {
  const F d;
  if constexpr (W > 1) {
    const auto [from, end] = seeing_vectors<W>(lanes);
    if (end - from < W) {
      for (index_t i = 0; i < key_step; ++i) {
        for (int w = 0; w < W; ++w) hn::Store(hn::Zero(d), d, p + (i * W + w) * L);
      }
      if (end - from == 1) weigh_step<1, W, true, kFetch>(t, head_dim, k, lanes, from, p, fetch);
      if (W == 3 && end - from == 2) weigh_step<2, W, true, kFetch>(t, head_dim, k, lanes, from, p, fetch);
      return;
    }
  }
  weigh_step<W, W, true, kFetch>(t, head_dim, k, lanes, 0, p, fetch);
}

template <int W>
HWY_INLINE void weigh(Tile& t, index_t head_dim, const KeyBatch& batch, float* p) {
  const F d;
  for (int w = 0; w < W; ++w) hn::Store(hn::Zero(d), d, t.batch_sum + w * L);
  for (index_t step = 0; step * key_step < batch.count; ++step) {
    const float* const* k = batch.k + step * key_step;
    const std::uint64_t* lanes = batch.lanes + step * key_step;
    float* to = p + step * key_step * W * L;
    const bool fetches = (step + 1) * key_step <= batch.fetch_count;
    const float* const* fetch = fetches ? batch.fetch[0] + step * key_step : nullptr;
    if (batch.cut >> step & 1) {
      (fetches ? weigh_cut_step<W, true> : weigh_cut_step<W, false>)(t, head_dim, k, lanes, to, fetch);
    } else if (fetches) {
      weigh_fetching_step<W>(t, head_dim, k, to, fetch);
    } else {
      weigh_step<W, W, false, false>(t, head_dim, k, lanes, 0, to, fetch);
    }
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
