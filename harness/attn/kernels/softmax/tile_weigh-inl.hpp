// From keys to weights: the first half of a batch; included once per instruction set.
#if defined(ATTN_KERNELS_TILE_WEIGH_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_TILE_WEIGH_INL
#undef ATTN_KERNELS_TILE_WEIGH_INL
#else
#define ATTN_KERNELS_TILE_WEIGH_INL
#endif
#include <hwy/highway.h>

#include "attn/kernels/machine/exp-inl.hpp"
#include "attn/kernels/machine/tanh-inl.hpp"
#include "attn/kernels/softmax/tile_product-inl.hpp"
#include "attn/kernels/softmax/tile_sight.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Made of a batch: weights and, in t.batch_sum, their sums; or scores and the largest ones, relative to the reference but in far
// lanes.
enum class Made { weights, scores };

// Weights of so many keys are added up before they meet the batch's sum.
inline constexpr int sum_rows = HWY_TARGET == HWY_AVX3 ? 8 : 4;

// What is stored where a lane does not see the key.
template <Made kMade>
HWY_INLINE V of_seen(Mask seen, V made) {
  return kMade == Made::scores ? hn::IfThenElse(seen, made, hn::Set(F(), -infinity)) : hn::IfThenElseZero(seen, made);
}

// cap tanh(x) + start of x = score / cap, `cap` in log2 units. A lane's way depends on its own score alone.
template <int R, int W>
HWY_INLINE void cap_scores(float cap, const V (&start)[W], V (&c)[R][W]) {
  const F d;
  const V limit = hn::Set(d, tanh_near_squared), whole = hn::Set(d, cap);
  const V a0 = hn::Set(d, tanh_near[0] * cap), a1 = hn::Set(d, tanh_near[1] * cap), a2 = hn::Set(d, tanh_near[2] * cap);
  const V a3 = hn::Set(d, tanh_near[3] * cap), a4 = hn::Set(d, tanh_near[4] * cap);
  const auto near = [&](V x, V square) HWY_ATTR {
    V p = hn::MulAdd(a4, square, a3);
    p = hn::MulAdd(p, square, a2);
    p = hn::MulAdd(p, square, a1);
    return hn::Mul(hn::MulAdd(p, square, a0), x);
  };
  V most = hn::Zero(d);
  ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) {
    most = larger(hn::Mul(c[i][w], c[i][w]), most);
  }
  if (HWY_LIKELY(hn::AllTrue(d, hn::Le(most, limit)))) {
    ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) {
      c[i][w] = hn::Add(near(c[i][w], hn::Mul(c[i][w], c[i][w])), start[w]);
    }
    return;
  }
  for (int i = 0; i < R; ++i)
    for (int w = 0; w < W; ++w) {
      const V x = c[i][w], square = hn::Mul(x, x);
      c[i][w] = hn::Add(hn::IfThenElse(hn::Gt(square, limit), hn::Mul(whole, tanh_beyond(x)), near(x, square)), start[w]);
    }
}

// Numbers from the bias of a key to that of the next.
template <Scoring kScoring, int kTile>
inline constexpr index_t bias_stride = kScoring == Scoring::paired   ? kTile* L
                                       : kScoring == Scoring::biased ? 1
                                                                     : 0;

// Of R keys, in W vectors of lanes out of the tile's kTile: `t`'s from vector `from` on. With kCut, lanes[i] says which lanes see
// key i; the weights of the others are zero, their scores -inf.
template <Made kMade, Scoring kScoring, int R, int W, int kTile, bool kCut, bool kFetch>
HWY_INLINE void weigh_rows(Tile& t, index_t head_dim, const std::byte* const* k, const float* bias, const std::uint64_t* lanes,
                           int from, float* p, const std::byte* const* fetch) {
  const F d;
  V c[R][W];
  const auto load_start = [&](V(&start)[W]) HWY_ATTR {
    load_row<W>(t.minus_ref + from * L, start);
    if constexpr (kMade == Made::scores) {
      ATTN_UNROLL for (int w = 0; w < W; ++w) start[w] = hn::IfThenZeroElse(lane_mask(t.far, from + w), start[w]);
    }
  };
  {
    V start[W];
    load_start(start);
    ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] =
        kScoring == Scoring::capped ? hn::Zero(d) : start[w];
  }
  multiply_rows<R, W, kTile, kFetch>(k, t.qt + from * L, head_dim, c, fetch);
  if constexpr (kScoring == Scoring::biased) {
    ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] = hn::Add(c[i][w], hn::Set(d, bias[i]));
  }
  if constexpr (kScoring == Scoring::paired) {
    ATTN_UNROLL for (int i = 0; i < R; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) c[i][w] =
        hn::Add(c[i][w], hn::Load(d, bias + (i * kTile + from + w) * L));
  }
  if constexpr (kScoring == Scoring::capped) {
    V start[W];
    load_start(start);
    cap_scores<R, W>(t.cap, start, c);
  }
  ATTN_UNROLL for (int group = 0; group < R; group += sum_rows) {
    V total[W];
    ATTN_UNROLL for (int i = group; i < group + sum_rows; ++i) ATTN_UNROLL for (int w = 0; w < W; ++w) {
      V made = kMade == Made::scores ? c[i][w] : exp2_lanes(c[i][w]);
      if constexpr (kCut) made = of_seen<kMade>(lane_mask(lanes[i], from + w), made);
      hn::Store(made, d, p + (i * kTile + from + w) * L);
      total[w] = i == group ? made : hn::Add(total[w], made);
    }
    if constexpr (kMade == Made::scores) continue;
    ATTN_UNROLL for (int w = 0; w < W; ++w) {
      float* sum = t.batch_sum + (from + w) * L;
      hn::Store(hn::Add(hn::Load(d, sum), total[w]), d, sum);
    }
  }
}

// Rows of a step that stay in registers together: as many accumulators as leave room for W lane vectors and a broadcast.
template <int W>
inline constexpr int step_rows = HWY_TARGET == HWY_AVX3 ? 8
                                 : W == 1               ? 8
                                                        : 4;

template <Made kMade, Scoring kScoring, int W, int kTile, bool kCut, bool kFetch>
HWY_INLINE void weigh_step(Tile& t, index_t head_dim, const std::byte* const* k, const float* bias, const std::uint64_t* lanes,
                           int from, float* p, const std::byte* const* fetch) {
  constexpr int R = step_rows<W>;
  for (int i = 0; i < key_step; i += R) {
    weigh_rows<kMade, kScoring, R, W, kTile, kCut, kFetch>(t, head_dim, k + i, bias + i * bias_stride<kScoring, kTile>, lanes + i,
                                                           from, p + L * kTile * i, kFetch ? fetch + i : nullptr);
  }
}

template <Made kMade, Scoring kScoring, int W, bool kFetch>
HWY_NOINLINE void weigh_step_apart(Tile& t, index_t head_dim, const std::byte* const* k, const float* bias, float* p,
                                   const std::byte* const* fetch) {
  weigh_step<kMade, kScoring, W, W, false, kFetch>(t, head_dim, k, bias, nullptr, 0, p, fetch);
}

// A step that some lanes do not see. What whole vectors do not see is not computed for them.
template <Made kMade, Scoring kScoring, int W, bool kFetch>
HWY_NOINLINE void weigh_cut_step(Tile& t, index_t head_dim, const std::byte* const* k, const float* bias,
                                 const std::uint64_t* lanes, float* p, const std::byte* const* fetch) {
  const F d;
  if constexpr (W > 1) {
    const auto [from, end] = seeing_vectors<W, L>(lanes);
    if (end - from < W) {
      const V nothing = hn::Set(d, kMade == Made::scores ? -infinity : 0.0f);
      for (index_t i = 0; i < key_step; ++i) {
        for (int w = 0; w < W; ++w) hn::Store(nothing, d, p + (i * W + w) * L);
      }
      if (end - from == 1) weigh_step<kMade, kScoring, 1, W, true, kFetch>(t, head_dim, k, bias, lanes, from, p, fetch);
      if (W == 3 && end - from == 2) weigh_step<kMade, kScoring, 2, W, true, kFetch>(t, head_dim, k, bias, lanes, from, p, fetch);
      return;
    }
  }
  weigh_step<kMade, kScoring, W, W, true, kFetch>(t, head_dim, k, bias, lanes, 0, p, fetch);
}

template <Made kMade, Scoring kScoring, int W>
HWY_INLINE void weigh_one_step(Tile& t, index_t head_dim, const KeyBatch& batch, index_t step, float* p) {
  const std::byte* const* k = batch.k + step * key_step;
  const float* bias = batch.bias + step * key_step * bias_stride<kScoring, W>;
  const std::uint64_t* lanes = batch.lanes + step * key_step;
  p += step * key_step * W * L;
  const bool fetches = (step + 1) * key_step <= batch.fetch_count;
  const std::byte* const* fetch = fetches ? batch.fetch[0] + step * key_step : nullptr;
  if (batch.cut >> step & 1) {
    (fetches ? weigh_cut_step<kMade, kScoring, W, true> : weigh_cut_step<kMade, kScoring, W, false>)(t, head_dim, k, bias, lanes, p,
                                                                                                     fetch);
  } else if (fetches) {
    weigh_step_apart<kMade, kScoring, W, true>(t, head_dim, k, bias, p, fetch);
  } else if constexpr (kMade == Made::scores) {
    weigh_step_apart<kMade, kScoring, W, false>(t, head_dim, k, bias, p, nullptr);
  } else {
    weigh_step<kMade, kScoring, W, W, false, false>(t, head_dim, k, bias, nullptr, 0, p, nullptr);
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
