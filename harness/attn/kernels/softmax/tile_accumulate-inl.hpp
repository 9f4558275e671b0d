// Weights meet values: the second half of a batch; included once per instruction set.
#if defined(ATTN_KERNELS_TILE_ACCUMULATE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_TILE_ACCUMULATE_INL
#undef ATTN_KERNELS_TILE_ACCUMULATE_INL
#else
#define ATTN_KERNELS_TILE_ACCUMULATE_INL
#endif
#include <hwy/highway.h>

#include <algorithm>

#include "attn/kernels/softmax/tile_weigh-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <int R, int W, bool kStairs>
HWY_INLINE void accumulate_rows(Tile& t, index_t x, const KeyBatch& batch, const Edges<W>& edges, const float* p, Lines& lines) {
  const F d;
  V c[R][W];
  float* o = t.ot + x * W * L;
  // A batch is summed by itself and then added: one chain over all keys would lose digits as keys grow many (at 8192 keys four
  // times the error of a blocked product).
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = hn::Zero(d);
  const std::byte* const* v = batch.v;
  const auto go_on = [&](index_t n) HWY_ATTR {
    v += n;
    p += n * W * L;
  };
  if constexpr (kStairs && W > 1) multiply_columns<R, W, 0, 1>(v, x, p, W * L, edges.before[0], c, lines), go_on(edges.before[0]);
  if constexpr (kStairs && W > 2) multiply_columns<R, W, 0, 2>(v, x, p, W * L, edges.before[1], c, lines), go_on(edges.before[1]);
  multiply_columns<R, W, 0, W>(v, x, p, W * L, edges.middle, c, lines), go_on(edges.middle);
  if constexpr (kStairs && W > 2) multiply_columns<R, W, 1, W>(v, x, p, W * L, edges.after[1], c, lines), go_on(edges.after[1]);
  if constexpr (kStairs && W > 1) multiply_columns<R, W, W - 1, W>(v, x, p, W * L, edges.after[0], c, lines);
  if (!t.fresh) {
    ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] =
        hn::Add(c[i][w], hn::Load(d, o + (i * W + w) * L));
  }
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) hn::Store(c[i][w], d, o + (i * W + w) * L);
}

// As `accumulate`, but what a lane must not see is not even multiplied by zero.
template <int W>
HWY_NOINLINE void accumulate_guarded(Tile& t, const TileShape& shape, const KeyBatch& batch, const float* p) {
  const F d;
  for (index_t x = 0; x < shape.value_dim; ++x) {
    for (int w = 0; w < W; ++w) {
      float* o = t.ot + (x * W + w) * L;
      V c = hn::Zero(d);
      for (index_t j = 0; j < batch.count; ++j) {
        const V next = hn::MulAdd(hn::Set(d, floats_at(batch.v[j])[x]), hn::Load(d, p + (j * W + w) * L), c);
        c = batch.cut >> (j / key_step) & 1 ? hn::IfThenElse(lane_mask(batch.lanes[j], w), next, c) : next;
      }
      if (!t.fresh) c = hn::Add(c, hn::Load(d, o));
      hn::Store(c, d, o);
    }
  }
}

template <int W, bool kStairs>
HWY_INLINE void accumulate_all(Tile& t, const TileShape& shape, const KeyBatch& batch, const Edges<W>& edges, const float* p) {
  constexpr int R = W == 1 && HWY_TARGET == HWY_AVX3 ? 16 : step_rows<W>;
  Lines lines(batch.fetch[1], batch.fetch_count, shape.value_dim);
  index_t x = 0;
  for (; x + R <= shape.value_dim; x += R) accumulate_rows<R, W, kStairs>(t, x, batch, edges, p, lines);
  if constexpr (R > 8) {
    if (x + 8 <= shape.value_dim) accumulate_rows<8, W, kStairs>(t, x, batch, edges, p, lines), x += 8;
  }
  if constexpr (R > 4) {
    if (x + 4 <= shape.value_dim) accumulate_rows<4, W, kStairs>(t, x, batch, edges, p, lines), x += 4;
  }
  for (; x < shape.value_dim; ++x) accumulate_rows<1, W, kStairs>(t, x, batch, edges, p, lines);
}

// Apart from the others: between stairs the accumulators pass through memory.
template <int W>
HWY_NOINLINE void accumulate_in_stairs(Tile& t, const TileShape& shape, const KeyBatch& batch, const Edges<W>& edges,
                                       const float* p) {
  accumulate_all<W, true>(t, shape, batch, edges, p);
}

template <int W>
HWY_INLINE void accumulate(Tile& t, const TileShape& shape, const KeyBatch& batch, const float* p) {
  if (HWY_UNLIKELY(batch.guard && batch.cut != 0)) return accumulate_guarded<W>(t, shape, batch, p);
  const Edges<W> edges = find_edges<W, L>(batch);
  if (edges.middle < batch.count)
    accumulate_in_stairs<W>(t, shape, batch, edges, p);
  else
    accumulate_all<W, false>(t, shape, batch, edges, p);
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
