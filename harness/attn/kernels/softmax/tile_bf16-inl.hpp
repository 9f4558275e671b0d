// The bf16 tile over a machine M, whose vectors have 16 lanes; included by the sources that define one. In an unnamed namespace, so that what
// one of them compiles for its instruction set is not taken for another's.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "attn/kernels/softmax/tile_bf16.hpp"
#include "attn/kernels/softmax/tile_sight.hpp"

#define ATTN_BF16_UNROLL _Pragma("GCC unroll 16")
#define ATTN_BF16_INLINE static inline __attribute__((always_inline))
#define ATTN_BF16_NOINLINE static __attribute__((noinline))

namespace attn::kernels {
namespace {

constexpr index_t L = 16;
constexpr float log2_of_e = 1.44269504f;
constexpr float no_score = -std::numeric_limits<float>::infinity();

// As in tile_reference-inl.hpp: sums of a batch above the first have their weights scaled, above the second or, in a lane's first batch,
// below the third, made again from the scores.
constexpr float scale_down_above = 4096.0f, lost_above = 0x1p92f, lost_below = 0x1p-83f;

// Weights of a batch: [count / 2][vectors] pairs, in memory that held scores.
ATTN_BF16_INLINE std::uint32_t* pairs_at(float* memory) { return reinterpret_cast<std::uint32_t*>(memory); }
ATTN_BF16_INLINE const std::uint32_t* pairs_at(const std::byte* memory) { return reinterpret_cast<const std::uint32_t*>(memory); }

ATTN_BF16_INLINE std::uint16_t lanes_of(std::uint64_t lanes, int w) { return static_cast<std::uint16_t>(lanes >> (16 * w)); }

// As tile_product-inl.hpp's: rows on their way into L2, a line at a time.
class NextLines {
 public:
  NextLines() = default;
  NextLines(const std::byte* const* rows, index_t count, index_t floats)
      : row_(rows), end_(rows + count), bytes_(4 * floats), left_(bytes_) {
    if (count > 0) line_ = *rows;
  }
  __attribute__((always_inline)) bool any() const { return row_ != end_; }
  __attribute__((always_inline)) void bring_in_next() {
    __builtin_prefetch(line_, 0, 2);
    line_ += 64;
    left_ -= 64;
    if (left_ > 0 || ++row_ == end_) return;
    line_ = *row_;
    left_ = bytes_;
  }

 private:
  const std::byte* const* row_ = nullptr;
  const std::byte* const* end_ = nullptr;
  const std::byte* line_ = nullptr;
  index_t bytes_ = 0, left_ = 0;
};

template <class M, int R, int W>
ATTN_BF16_INLINE void clear(typename M::V (&c)[R][W]) {
  ATTN_BF16_UNROLL for (int i = 0; i < R; ++i) ATTN_BF16_UNROLL for (int w = 0; w < W; ++w) c[i][w] = M::zero();
}

// c[i] += K[row i] . q, of W vectors out of kTile.
template <class M, int R, int W, int kTile, bool kFetch>
ATTN_BF16_INLINE void multiply_keys(const std::byte* const* k, const std::uint32_t* q, index_t head_dim, typename M::V (&c)[R][W],
                                    const std::byte* const* fetch) {
  const std::byte* row[R];
  ATTN_BF16_UNROLL for (int i = 0; i < R; ++i) row[i] = k[i];
  NextLines lines(fetch, kFetch ? R : 0, head_dim);
  const index_t pairs = head_dim / 2;
  typename M::I lane[W];
  _Pragma("GCC unroll 4") for (index_t x = 0; x < pairs; ++x, q += kTile * L) {
    if constexpr (kFetch) {
      if (lines.any()) lines.bring_in_next();
    }
    ATTN_BF16_UNROLL for (int w = 0; w < W; ++w) lane[w] = M::load_pairs(q + w * L);
    ATTN_BF16_UNROLL for (int i = 0; i < R; ++i) {
      const typename M::I a = M::pair(row[i] + 4 * x);
      ATTN_BF16_UNROLL for (int w = 0; w < W; ++w) c[i][w] = M::dot(c[i][w], lane[w], a);
    }
  }
  if (head_dim % 2 == 0) return;
  ATTN_BF16_UNROLL for (int w = 0; w < W; ++w) lane[w] = M::load_pairs(q + w * L);
  ATTN_BF16_UNROLL for (int i = 0; i < R; ++i) {
    const typename M::I a = M::low(row[i] + 4 * pairs);
    ATTN_BF16_UNROLL for (int w = 0; w < W; ++w) c[i][w] = M::dot(c[i][w], lane[w], a);
  }
}

// The weights of two keys, rounded.
template <class M>
ATTN_BF16_INLINE typename M::I weigh_pair(typename M::V even, typename M::V odd, typename M::V factor, typename M::V minus_ref) {
  return M::round(M::exp2(M::fma(even, factor, minus_ref)), M::exp2(M::fma(odd, factor, minus_ref)));
}

// Of a step's keys, in W vectors of lanes from vector `from` on. kScores: scores into p, -inf where a lane does not see the key; else
// weights into p, zero there, and their sums into t.batch_sum. A function by itself: inlined where it is called, registers run out
// (a tenth of its speed).
template <class M, int W, int kTile, bool kCut, bool kFetch, bool kScores>
ATTN_BF16_NOINLINE void weigh_step(const Tile& t, index_t head_dim, const std::byte* const* k, const std::uint64_t* lanes, int from,
                                   float* p, const std::byte* const* fetch) {
  constexpr int R = key_step;
  typename M::V c[R][W];
  clear<M>(c);
  multiply_keys<M, R, W, kTile, kFetch>(k, pairs_at(t.qt) + from * L, head_dim, c, fetch);
  if constexpr (kScores) {
    ATTN_BF16_UNROLL for (int i = 0; i < R; ++i) ATTN_BF16_UNROLL for (int w = 0; w < W; ++w) {
      if constexpr (kCut) c[i][w] = M::select(lanes_of(lanes[i], from + w), c[i][w], M::set(no_score));
      M::store(p + (i * kTile + from + w) * L, c[i][w]);
    }
  } else {
    const typename M::V factor = M::set(t.factor);
    ATTN_BF16_UNROLL for (int w = 0; w < W; ++w) {
      float* const sum = t.batch_sum + (from + w) * L;
      typename M::V total = M::load(sum);
      const typename M::V minus_ref = M::load(t.minus_ref + (from + w) * L);
      ATTN_BF16_UNROLL for (int i = 0; i < R; i += 2) {
        typename M::I pair = weigh_pair<M>(c[i][w], c[i + 1][w], factor, minus_ref);
        if constexpr (kCut) pair = M::keep(pair, lanes_of(lanes[i], from + w), lanes_of(lanes[i + 1], from + w));
        M::store_pairs(pairs_at(p) + (i / 2 * kTile + from + w) * L, pair);
        total = M::dot(total, pair, M::ones());
      }
      M::store(sum, total);
    }
  }
}

// A step that some lanes do not see. What whole vectors do not see is not computed for them.
template <class M, int W, bool kFetch, bool kScores>
ATTN_BF16_NOINLINE void weigh_cut_step(const Tile& t, index_t head_dim, const std::byte* const* k, const std::uint64_t* lanes,
                                       float* p, const std::byte* const* fetch) {
  if constexpr (W > 1) {
    const auto [from, end] = seeing_vectors<W, L>(lanes);
    if (end - from < W) {
      const index_t rows = kScores ? key_step : key_step / 2;
      for (index_t i = 0; i < rows * W; ++i) M::store(p + i * L, M::set(kScores ? no_score : 0.0f));
      if (end - from == 1) weigh_step<M, 1, W, true, kFetch, kScores>(t, head_dim, k, lanes, from, p, fetch);
      if (W == 3 && end - from == 2) weigh_step<M, 2, W, true, kFetch, kScores>(t, head_dim, k, lanes, from, p, fetch);
      return;
    }
  }
  weigh_step<M, W, W, true, kFetch, kScores>(t, head_dim, k, lanes, 0, p, fetch);
}

template <class M, int W, bool kScores>
ATTN_BF16_INLINE void weigh_batch(const Tile& t, index_t head_dim, const KeyBatch& batch, float* p) {
  for (index_t step = 0; step * key_step < batch.count; ++step) {
    const std::byte* const* k = batch.k + step * key_step;
    const std::uint64_t* lanes = batch.lanes + step * key_step;
    float* to = p + step * key_step * (kScores ? W * L : W * L / 2);
    const bool cut = (batch.cut >> step & 1) != 0;
    if (!kScores && (step + 1) * key_step <= batch.fetch_count) {
      const std::byte* const* fetch = batch.fetch[0] + step * key_step;
      (cut ? weigh_cut_step<M, W, true, kScores>(t, head_dim, k, lanes, to, fetch)
           : weigh_step<M, W, W, false, true, kScores>(t, head_dim, k, lanes, 0, to, fetch));
    } else {
      (cut ? weigh_cut_step<M, W, false, kScores>(t, head_dim, k, lanes, to, nullptr)
           : weigh_step<M, W, W, false, false, kScores>(t, head_dim, k, lanes, 0, to, nullptr));
    }
  }
}

// ---- References

// Lanes whose sum is beyond the limits. What a lane does depends on its own scores alone.
template <class M, int W>
ATTN_BF16_INLINE std::uint64_t lanes_off(const Tile& t, std::uint64_t first, float above) {
  std::uint64_t off = 0;
  for (int w = 0; w < W; ++w) {
    const typename M::V sum = M::load(t.batch_sum + w * L);
    off |= std::uint64_t{M::not_at_most(sum, above)} << (16 * w);
    off |= (std::uint64_t{M::not_at_least(sum, lost_below)} << (16 * w)) & first;
  }
  return off;
}

template <class M, int W>
ATTN_BF16_INLINE void scale_row(float* row, const float* by) {
  for (int w = 0; w < W; ++w) M::store(row + w * L, M::mul(M::load(row + w * L), M::load(by + w * L)));
}

// The batch once more, by scores: references of the lanes `off` move to their largest score, and the sums with them.
template <class M, int W>
ATTN_BF16_NOINLINE void weigh_again(Tile& t, const TileShape& shape, const KeyBatch& batch, std::uint64_t first, std::uint64_t off,
                                    float* p) {
  weigh_batch<M, W, true>(t, shape.head_dim, batch, p);
  alignas(64) float top[max_lanes], by[max_lanes];
  for (int w = 0; w < W; ++w) {
    typename M::V largest = M::set(no_score);
    for (index_t j = 0; j < batch.count; ++j) largest = M::max_number(M::load(p + (j * W + w) * L), largest);
    M::store(top + w * L, M::mul(largest, M::set(t.factor)));
  }
  for (index_t i = 0; i < W * L; ++i) {
    by[i] = 1.0f;
    if ((off >> i & 1) == 0 || !std::isfinite(top[i])) continue;
    const float moved = -std::nearbyint(top[i]);
    by[i] = (first >> i & 1) != 0 ? 1.0f : std::exp2(moved - t.minus_ref[i]);  // sums before the first batch are zeros
    t.minus_ref[i] = moved;
  }
  if (!t.fresh) {
    scale_row<M, W>(t.sum, by);
    for (index_t x = 0; x < shape.value_dim; ++x) scale_row<M, W>(t.ot + x * W * L, by);
  }
  for (int w = 0; w < W; ++w) {
    typename M::V total = M::zero();
    const typename M::V factor = M::set(t.factor), minus_ref = M::load(t.minus_ref + w * L);
    for (index_t j = 0; j < batch.count; j += 2) {
      const float* const s = p + (j * W + w) * L;
      const typename M::I pair = weigh_pair<M>(M::load(s), M::load(s + W * L), factor, minus_ref);
      M::store_pairs(pairs_at(p) + (j / 2 * W + w) * L, pair);
      total = M::dot(total, pair, M::ones());
    }
    M::store(t.batch_sum + w * L, total);
  }
}

// Reference, weights and sums by a power of two, which rounds nothing but what falls below the smallest normal number: to zero.
template <class M, int W>
ATTN_BF16_NOINLINE void scale_down(Tile& t, const TileShape& shape, index_t count, std::uint64_t first, float* p) {
  alignas(64) float own[max_lanes], before[max_lanes];
  alignas(64) std::uint32_t exponents[max_lanes];
  for (index_t i = 0; i < W * L; ++i) {
    const float sum = t.batch_sum[i];
    const bool scaled = sum > scale_down_above && sum <= std::numeric_limits<float>::max();
    const std::uint32_t by = scaled ? (std::bit_cast<std::uint32_t>(sum) >> 23) - 127 : 0;
    own[i] = std::bit_cast<float>((127 - by) << 23);
    before[i] = (first >> i & 1) != 0 ? 1.0f : own[i];  // sums before the first batch are zeros
    exponents[i] = by << 7 | by << 23;
    t.minus_ref[i] -= static_cast<float>(by);
  }
  for (index_t j = 0; j < count / 2; ++j) {
    for (int w = 0; w < W; ++w) {
      std::uint32_t* const pairs = pairs_at(p) + (j * W + w) * L;
      M::store_pairs(pairs, M::less_exponents(M::load_pairs(pairs), M::load_pairs(exponents + w * L)));
    }
  }
  scale_row<M, W>(t.batch_sum, own);
  if (t.fresh) return;
  scale_row<M, W>(t.sum, before);
  for (index_t x = 0; x < shape.value_dim; ++x) scale_row<M, W>(t.ot + x * W * L, before);
}

// What `weigh_batch` left must not be used as it is.
template <class M, int W>
ATTN_BF16_NOINLINE void mend(Tile& t, const TileShape& shape, const KeyBatch& batch, std::uint64_t first, float* p) {
  const std::uint64_t lost = lanes_off<M, W>(t, first, lost_above);
  if (lost != 0) weigh_again<M, W>(t, shape, batch, first, lost, p);
  if (lanes_off<M, W>(t, 0, scale_down_above) != 0) scale_down<M, W>(t, shape, batch.count, first, p);
}

// ---- Values

// c[i] += V[., x + i] . P[., vector w] for kFrom <= w < kEnd over `pairs` pairs of keys.
template <class M, int R, int W, int kFrom, int kEnd>
ATTN_BF16_INLINE void multiply_values(const std::byte* const* v, index_t x, const std::uint32_t* p, index_t pairs,
                                      typename M::V (&c)[R][W], NextLines& lines) {
  for (index_t j = 0; j < pairs; ++j, p += W * L) {
    if (lines.any()) lines.bring_in_next();
    const std::uint32_t* a = pairs_at(v[2 * j]) + x;
    asm("" : "+r"(a));  // as in tile_product-inl.hpp
    typename M::I lane[W];
    ATTN_BF16_UNROLL for (int w = kFrom; w < kEnd; ++w) lane[w] = M::load_pairs(p + w * L);
    ATTN_BF16_UNROLL for (int i = 0; i < R; ++i) {
      const typename M::I value = M::set_pair(a[i]);
      ATTN_BF16_UNROLL for (int w = kFrom; w < kEnd; ++w) c[i][w] = M::dot(c[i][w], lane[w], value);
    }
  }
}

template <class M, int R, int W, bool kStairs>
ATTN_BF16_INLINE void accumulate_rows(Tile& t, index_t x, const KeyBatch& batch, const Edges<W>& edges, const std::uint32_t* p,
                                      NextLines& lines) {
  typename M::V c[R][W];
  clear<M>(c);
  const std::byte* const* v = batch.v;
  if constexpr (kStairs && W > 1) {
    multiply_values<M, R, W, 0, 1>(v, x, p, edges.before[0] / 2, c, lines);
    v += edges.before[0], p += edges.before[0] / 2 * W * L;
  }
  if constexpr (kStairs && W > 2) {
    multiply_values<M, R, W, 0, 2>(v, x, p, edges.before[1] / 2, c, lines);
    v += edges.before[1], p += edges.before[1] / 2 * W * L;
  }
  multiply_values<M, R, W, 0, W>(v, x, p, edges.middle / 2, c, lines);
  v += edges.middle, p += edges.middle / 2 * W * L;
  if constexpr (kStairs && W > 2) {
    multiply_values<M, R, W, 1, W>(v, x, p, edges.after[1] / 2, c, lines);
    v += edges.after[1], p += edges.after[1] / 2 * W * L;
  }
  if constexpr (kStairs && W > 1) multiply_values<M, R, W, W - 1, W>(v, x, p, edges.after[0] / 2, c, lines);
  float* const o = t.ot + x * W * L;
  if (!t.fresh) {
    ATTN_BF16_UNROLL for (int i = 0; i < R; ++i) ATTN_BF16_UNROLL for (int w = 0; w < W; ++w) c[i][w] =
        M::add(c[i][w], M::load(o + (i * W + w) * L));
  }
  ATTN_BF16_UNROLL for (int i = 0; i < R; ++i) ATTN_BF16_UNROLL for (int w = 0; w < W; ++w) M::store(o + (i * W + w) * L, c[i][w]);
}

template <class M, int W, bool kStairs>
ATTN_BF16_NOINLINE void accumulate_all(Tile& t, const TileShape& shape, const KeyBatch& batch, const Edges<W>& edges,
                                       const std::uint32_t* p) {
  constexpr int R = W == 1 ? 16 : 8;
  NextLines lines(batch.fetch[1], batch.fetch_count, shape.value_dim);
  index_t x = 0;
  for (; x + R <= shape.value_dim; x += R) accumulate_rows<M, R, W, kStairs>(t, x, batch, edges, p, lines);
  if constexpr (R > 8) {
    if (x + 8 <= shape.value_dim) accumulate_rows<M, 8, W, kStairs>(t, x, batch, edges, p, lines), x += 8;
  }
  if (x + 4 <= shape.value_dim) accumulate_rows<M, 4, W, kStairs>(t, x, batch, edges, p, lines), x += 4;
  for (; x < shape.value_dim; ++x) accumulate_rows<M, 1, W, kStairs>(t, x, batch, edges, p, lines);
}

// What a lane must not see is not even multiplied by zero.
template <class M, int W>
ATTN_BF16_NOINLINE void accumulate_guarded(Tile& t, const TileShape& shape, const KeyBatch& batch, const std::uint32_t* p) {
  for (index_t x = 0; x < shape.value_dim; ++x) {
    for (int w = 0; w < W; ++w) {
      float* const o = t.ot + (x * W + w) * L;
      typename M::V c = M::zero();
      for (index_t j = 0; j < batch.count; j += 2) {
        const std::uint32_t value = pairs_at(batch.v[j])[x];
        const typename M::I pair = M::load_pairs(p + (j / 2 * W + w) * L);
        const bool cut = (batch.cut >> (j / key_step) & 1) != 0;
        const std::uint16_t even = lanes_of(cut ? batch.lanes[j] : ~std::uint64_t{0}, w);
        const std::uint16_t odd = lanes_of(cut ? batch.lanes[j + 1] : ~std::uint64_t{0}, w);
        const typename M::V both = M::dot(c, pair, M::set_pair(value));
        const typename M::V one = M::select(even, M::dot(c, pair, M::set_pair(value & 0xffff)),
                                            M::select(odd, M::dot(c, pair, M::set_pair(value & 0xffff0000)), c));
        c = M::select(static_cast<std::uint16_t>(even & odd), both, one);
      }
      if (!t.fresh) c = M::add(c, M::load(o));
      M::store(o, c);
    }
  }
}

template <class M, int W>
ATTN_BF16_INLINE void accumulate(Tile& t, const TileShape& shape, const KeyBatch& batch, const std::uint32_t* p) {
  if (__builtin_expect(batch.guard && batch.cut != 0, 0)) return accumulate_guarded<M, W>(t, shape, batch, p);
  const Edges<W> edges = find_edges<W, L>(batch);
  if (edges.middle < batch.count)
    accumulate_all<M, W, true>(t, shape, batch, edges, p);
  else
    accumulate_all<M, W, false>(t, shape, batch, edges, p);
}

// ---- The tile's operations

template <class M, int W>
static void attend(Tile& t, const TileShape& shape, const KeyBatch& batch, float* p) {
  const std::uint64_t first = t.unset != 0 ? t.unset & seeing_lanes(batch) : 0;
  for (int w = 0; w < W; ++w) M::store(t.batch_sum + w * L, M::zero());
  weigh_batch<M, W, false>(t, shape.head_dim, batch, p);
  if (__builtin_expect(lanes_off<M, W>(t, first, scale_down_above) != 0, 0)) mend<M, W>(t, shape, batch, first, p);
  t.unset &= ~first;
  accumulate<M, W>(t, shape, batch, pairs_at(p));
  for (int w = 0; w < W; ++w) {
    const typename M::V batch_sum = M::load(t.batch_sum + w * L);
    M::store(t.sum + w * L, t.fresh ? batch_sum : M::add(M::load(t.sum + w * L), batch_sum));
  }
  t.fresh = false;
}

template <class M, int W>
static void load(Tile& t, const TileShape& shape, const std::byte* const* rows, index_t count, float factor) {
  alignas(64) static constexpr std::byte zeros[2 * max_head_dim] = {};
  const std::byte* source[max_lanes];
  for (index_t i = 0; i < W * L; ++i) source[i] = i < count ? rows[i] : zeros;
  const index_t pairs = shape.head_dim / 2;
  for (int w = 0; w < W; ++w) {
    index_t x = 0;
    for (; x + L <= pairs; x += L) {
      typename M::V column[L];
      ATTN_BF16_UNROLL for (int i = 0; i < L; ++i) column[i] = M::load_unaligned(source[w * L + i] + 4 * x);
      M::transpose(column);
      ATTN_BF16_UNROLL for (int i = 0; i < L; ++i) M::store(t.qt + ((x + i) * W + w) * L, column[i]);
    }
    for (; 2 * x < shape.head_dim; ++x) {
      for (int i = 0; i < L; ++i) {
        std::uint32_t pair = 0;
        std::memcpy(&pair, source[w * L + i] + 4 * x, x < pairs ? 4 : 2);
        std::memcpy(t.qt + (x * W + w) * L + i, &pair, sizeof pair);
      }
    }
    M::store(t.minus_ref + w * L, M::zero());
  }
  t.unset = (std::uint64_t{1} << count) - 1;
  t.fresh = true;
  t.factor = factor;
}

template <class M, int W>
static void resume(Tile& t, const TileShape& shape, const float* const* rows, index_t count, const float* const* lse) {
  for (index_t i = 0; i < W * L; ++i) {
    const bool seen = i < count && *lse[i] != no_score;
    const float log = seen ? *lse[i] * log2_of_e : 0.0f;
    t.minus_ref[i] = -std::nearbyint(log);
    t.sum[i] = seen ? std::exp2(log + t.minus_ref[i]) : 0.0f;
    for (index_t x = 0; x < shape.value_dim; ++x) t.ot[x * W * L + i] = seen ? rows[i][x] * t.sum[i] : 0.0f;
    if (seen) t.unset &= ~(std::uint64_t{1} << i);
  }
  t.fresh = false;
}

template <class M, int W>
static bool finite(const Tile& t, const TileShape& shape) {
  if (t.fresh) return true;
  typename M::V worst = M::zero();
  for (index_t i = 0; i < shape.value_dim * W; ++i) worst = M::fma(M::load(t.ot + i * L), M::zero(), worst);
  return M::not_at_most(worst, 0.0f) == 0;
}

template <class M, int W>
static void merge(Tile& t, const TileShape& shape, const Tile& other) {
  if (other.fresh) return;
  alignas(64) float own[max_lanes], others[max_lanes];
  for (index_t i = 0; i < W * L; ++i) {
    const bool mine = !t.fresh && (t.unset >> i & 1) == 0, theirs = (other.unset >> i & 1) == 0;
    const float minus_ref = mine && theirs ? std::min(t.minus_ref[i], other.minus_ref[i])
                            : mine         ? t.minus_ref[i]
                                           : other.minus_ref[i];
    own[i] = mine ? std::exp2(minus_ref - t.minus_ref[i]) : 0.0f;
    others[i] = theirs ? std::exp2(minus_ref - other.minus_ref[i]) : 0.0f;
    t.minus_ref[i] = minus_ref;
  }
  for (index_t x = -1; x < shape.value_dim; ++x) {
    for (int w = 0; w < W; ++w) {
      float* const to = x < 0 ? t.sum + w * L : t.ot + (x * W + w) * L;
      const float* const from = x < 0 ? other.sum + w * L : other.ot + (x * W + w) * L;
      const typename M::V theirs = M::mul(M::load(from), M::load(others + w * L));
      M::store(to, t.fresh ? theirs : M::fma(M::load(to), M::load(own + w * L), theirs));
    }
  }
  t.unset &= other.unset;
  t.fresh = false;
}

// o / sum, rounded once where that is finite: the product with the reciprocal, and what it lacks. Values of 1 give 1.
template <class M>
ATTN_BF16_INLINE typename M::V divide(typename M::V o, typename M::V minus_sum, typename M::V reciprocal) {
  const typename M::V quotient = M::mul(o, reciprocal), rest = M::fma(quotient, minus_sum, o);
  return M::select(M::number(rest), M::fma(rest, reciprocal, quotient), quotient);
}

template <class M, int W>
static void store(const Tile& t, const TileShape& shape, float* const* rows, index_t count, float* const* lse) {
  alignas(64) float spare[max_head_dim], minus_sum[max_lanes], reciprocal[max_lanes];
  float* target[max_lanes];
  for (index_t i = 0; i < W * L; ++i) {
    const bool seen = i < count && (t.unset >> i & 1) == 0 && !t.fresh;
    target[i] = seen ? rows[i] : spare;
    minus_sum[i] = seen ? -t.sum[i] : -1.0f;
    reciprocal[i] = -1.0f / minus_sum[i];
    if (i >= count) continue;
    if (!seen) std::fill_n(rows[i], shape.value_dim, 0.0f);
    if (lse != nullptr) *lse[i] = seen ? (std::log2(t.sum[i]) - t.minus_ref[i]) / log2_of_e : no_score;
  }
  if (t.fresh) return;
  for (int w = 0; w < W; ++w) {
    const typename M::V by = M::load(reciprocal + w * L), less = M::load(minus_sum + w * L);
    index_t x = 0;
    for (; x + L <= shape.value_dim; x += L) {
      typename M::V row[L];
      ATTN_BF16_UNROLL for (int i = 0; i < L; ++i) row[i] = divide<M>(M::load(t.ot + ((x + i) * W + w) * L), less, by);
      M::transpose(row);
      ATTN_BF16_UNROLL for (int i = 0; i < L; ++i) M::store_unaligned(target[w * L + i] + x, row[i]);
    }
    for (; x < shape.value_dim; ++x) {
      alignas(64) float column[L];
      M::store(column, divide<M>(M::load(t.ot + (x * W + w) * L), less, by));
      for (int i = 0; i < L; ++i) target[w * L + i][x] = column[i];
    }
  }
}

template <class M, int W>
constexpr TileOps bf16_ops{W * L, load<M, W>, resume<M, W>, attend<M, W>, finite<M, W>, merge<M, W>, store<M, W>};

template <class M>
const TileOps& bf16_ops_for(int vectors) {
  return vectors == 1 ? bf16_ops<M, 1> : vectors == 2 ? bf16_ops<M, 2> : bf16_ops<M, 3>;
}

}  // namespace
}  // namespace attn::kernels
