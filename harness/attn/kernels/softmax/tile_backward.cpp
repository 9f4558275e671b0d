#include "attn/kernels/softmax/tile_backward.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/softmax/tile_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/machine/lanes-inl.hpp"
#include "attn/kernels/softmax/tile-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Below every exponent, and finite: exp2 of it plus any score is 0.
inline constexpr float no_weight = -1e30f;

inline float dot_product(const float* a, const float* b, index_t n) {
  const F d;
  V sum = hn::Zero(d);
  for (index_t x = 0; x < n; x += L) sum = hn::MulAdd(load_first(a + x, n - x), load_first(b + x, n - x), sum);
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <int W>
void load_backward(BackwardTile& t, const TileShape& shape, const BackwardRows& rows, float factor, float scale) {
  const F d;
  HWY_ALIGN static constexpr float zeros[max_head_dim] = {};
  const float *q[max_lanes], *d_out[max_lanes];
  for (index_t i = 0; i < W * L; ++i) {
    const bool own = i < rows.count;
    q[i] = own ? rows.q[i] : zeros;
    d_out[i] = own ? rows.d_out[i] : zeros;
    t.minus_lse[i] = own && std::abs(*rows.lse[i]) < infinity ? -*rows.lse[i] * log2_e : no_weight;
    t.minus_delta[i] = own ? -scale * dot_product(rows.out[i], d_out[i], shape.value_dim) : 0.0f;
  }
  for (int w = 0; w < W; ++w) {
    rows_to_lanes(q + w * L, shape.head_dim, hn::Set(d, factor), t.qt + w * L, W * L);
    rows_to_lanes(d_out + w * L, shape.value_dim, hn::Set(d, scale), t.dot + w * L, W * L);
  }
  t.fresh = true;
}

// P of R keys.
template <int R, int W, bool kCut>
HWY_NOINLINE void weigh_backward(const BackwardTile& t, const TileShape& shape, const KeyBatch& batch, index_t j, float* p,
                                 index_t stride) {
  const F d;
  p += j * stride;
  V c[R][W], start[W];
  load_row<W>(t.minus_lse, start);
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = start[w];
  multiply_rows<R, W, W, false>(batch.k + j, t.qt, shape.head_dim, c);
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) {
    V e = exp2_lanes(c[i][w]);
    if constexpr (kCut) e = hn::IfThenElseZero(lane_mask(batch.lanes[j + i], w), e);
    hn::Store(e, d, p + i * stride + w * L);
  }
}

// dS of R keys.
template <int R, int W>
HWY_NOINLINE void d_scores_backward(const BackwardTile& t, const TileShape& shape, const KeyBatch& batch, index_t j, const float* p,
                                    float* ds, index_t stride) {
  const F d;
  p += j * stride;
  ds += j * stride;
  V c[R][W], start[W];
  load_row<W>(t.minus_delta, start);
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = start[w];
  multiply_rows<R, W, W, false>(batch.v + j, t.dot, shape.value_dim, c);
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) {
    hn::Store(hn::Mul(c[i][w], hn::Load(d, p + i * stride + w * L)), d, ds + i * stride + w * L);
  }
}

// dQ columns x .. x + R - 1.
template <int R, int W>
HWY_NOINLINE void add_d_queries(BackwardTile& t, index_t x, const KeyBatch& batch, const float* ds, index_t stride) {
  const F d;
  V c[R][W];
  float* to = t.dqt + x * W * L;
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = hn::Zero(d);
  Lines nothing;
  multiply_columns<R, W, 0, W>(batch.k, x, ds, stride, batch.count, c, nothing);
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) {
    if (!t.fresh) c[i][w] = hn::Add(c[i][w], hn::Load(d, to + (i * W + w) * L));
    hn::Store(c[i][w], d, to + (i * W + w) * L);
  }
}

template <int W>
void attend_backward(BackwardTile& t, const TileShape& shape, const KeyBatch& batch, float* p, float* ds, index_t stride) {
  constexpr int R = step_rows<W>;
  for (index_t j = 0; j < batch.count; j += R) {
    if (batch.cut >> (j / key_step) & 1)
      weigh_backward<R, W, true>(t, shape, batch, j, p, stride);
    else
      weigh_backward<R, W, false>(t, shape, batch, j, p, stride);
  }
  // A product after the other, so that one of qt and dot at a time has to stay in L1.
  for (index_t j = 0; j < batch.count; j += R) d_scores_backward<R, W>(t, shape, batch, j, p, ds, stride);
  index_t x = 0;
  for (; x + R <= shape.head_dim; x += R) add_d_queries<R, W>(t, x, batch, ds, stride);
  if constexpr (R > 4) {
    if (x + 4 <= shape.head_dim) add_d_queries<4, W>(t, x, batch, ds, stride), x += 4;
  }
  for (; x < shape.head_dim; ++x) add_d_queries<1, W>(t, x, batch, ds, stride);
  t.fresh = false;
}

template <int W>
void store_backward(const BackwardTile& t, const TileShape& shape, float* const* rows, index_t count, bool add) {
  HWY_ALIGN float spare[max_head_dim], factor[L], own[L * max_head_dim];
  if (t.fresh) {
    for (index_t i = 0; i < count && !add; ++i) std::fill_n(rows[i], shape.head_dim, 0.0f);
    return;
  }
  std::fill_n(factor, L, 1.0f);
  for (int w = 0; w < W; ++w) {
    float* target[L];
    const index_t in_vector = std::clamp<index_t>(count - w * L, 0, L);
    for (index_t i = 0; i < L; ++i) target[i] = i >= in_vector ? spare : add ? own + i * shape.head_dim : rows[w * L + i];
    lanes_to_rows(t.dqt + w * L, W * L, shape.head_dim, factor, target);
    for (index_t i = 0; i < in_vector && add; ++i) {
      float* row = rows[w * L + i];
      for (index_t x = 0; x < shape.head_dim; x += L) {
        const index_t left = shape.head_dim - x;
        store_first(hn::Add(load_first(row + x, left), load_first(target[i] + x, left)), row + x, left);
      }
    }
  }
}

template <int W>
inline constexpr BackwardTileOps backward_ops_of{W * L, load_backward<W>, attend_backward<W>, store_backward<W>};

const BackwardTileOps* backward_ops_for(int vectors) {
  return vectors == 1 ? &backward_ops_of<1> : vectors == 2 ? &backward_ops_of<2> : &backward_ops_of<3>;
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(backward_ops_for);

const BackwardTileOps& backward_tile_ops(int vectors) { return *HWY_DYNAMIC_DISPATCH(backward_ops_for)(vectors); }

}  // namespace attn::kernels
#endif
