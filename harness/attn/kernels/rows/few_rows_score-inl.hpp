// Scores of few rows; included once per instruction set.
#if defined(ATTN_KERNELS_FEW_ROWS_SCORE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_FEW_ROWS_SCORE_INL
#undef ATTN_KERNELS_FEW_ROWS_SCORE_INL
#else
#define ATTN_KERNELS_FEW_ROWS_SCORE_INL
#endif
#include <algorithm>
#include <type_traits>

#include "attn/kernels/dense/transpose-inl.hpp"
#include "attn/kernels/machine/lanes-inl.hpp"
#include "attn/kernels/machine/storage-inl.hpp"
#include "attn/kernels/rows/fetch-inl.hpp"
#include "attn/kernels/rows/few_rows.hpp"
#include "attn/kernels/rows/lane_sums-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE::few_rows {
namespace hn = hwy::HWY_NAMESPACE;

// Sums of a score tile, rows times keys: 8 fit the 16 registers of AVX2.
inline constexpr int sums = kLanes == 16 || kLanes == 4 ? 16 : kLanes == 8 ? 8 : 4;
template <int R>
inline constexpr int tile_keys = sums / R;

// Of the keys of a tile, and of a key's vectors. Their sums, with those of the tile so far, fit the registers.
inline constexpr int keys_at_once = 2;
template <int R>
inline constexpr int vectors_at_once = kLanes == 16 || R < 4 ? 2 : 1;

// Keeps a load from being folded into each of its uses: g++ 12 does that, and loads, which are as few a cycle as multiplications,
// then bind.
HWY_INLINE V held(V x) {
#if HWY_COMPILER_GCC_ACTUAL && HWY_TARGET == HWY_AVX3
  asm("" : "+v"(x.raw));
#elif HWY_COMPILER_GCC_ACTUAL && HWY_TARGET == HWY_AVX2
  asm("" : "+x"(x.raw));
#endif
  return x;
}

// N vectors of a row from element `at` on, a multiple of what they hold.
template <class S, int N, bool kHeld>
HWY_INLINE void load_vectors(const std::byte* row, index_t at, V* to) {
  if constexpr (std::is_same_v<S, stored::Q8>) {
    constexpr int together = std::min(N, static_cast<int>(q8::count / kLanes));
    ATTN_UNROLL for (int i = 0; i < N; i += together) S::template load_some<together>(row, at + i * kLanes, to + i);
  } else {
    ATTN_UNROLL for (int i = 0; i < N; ++i) to[i] = S::load(row, at + i * kLanes);
  }
  if constexpr (kHeld) {
    ATTN_UNROLL for (int i = 0; i < N; ++i) to[i] = held(to[i]);
  }
}

// ---- Scores

// The rows that queries meet: `width` numbers of each, by those of q from its own column on.
struct Piece {
  const std::byte* const* rows;
  const float* q;
  index_t width;
};

// to[r * keys + g] = q[r] . k[g], for R rows and the tile's keys, in one piece or in two. Two rows of keys are read at a time and two vectors
// of each, nearly in the order of addresses, which the machine fetches best: with four rows side by side 0.67 of the bandwidth for 0.74
// (Zen 4).
template <class S, int R, int kRate, std::size_t kPieces>
HWY_INLINE void score(const Piece (&pieces)[kPieces], index_t q_stride, Fetch& fetch, float* to) {
  const F d;
  constexpr int keys = tile_keys<R>, step = std::min(keys, keys_at_once), wide = vectors_at_once<R>;
  V acc[sums];
  ATTN_UNROLL for (int first = 0; first < keys; first += step) {
    V part[wide][R][step];
    ATTN_UNROLL for (int i = 0; i < wide * R * step; ++i) part[i / step / R][i / step % R][i % step] = hn::Zero(d);
    for (const auto& [rows, q, width] : pieces) {
      const std::byte* const* const k = rows + first;
      const auto multiply = [&, own = q](const V(&x)[step][wide], int i, index_t at) HWY_ATTR {
        ATTN_UNROLL for (int r = 0; r < R; ++r) {
          const V y = held(hn::Load(d, own + r * q_stride + at));
          ATTN_UNROLL for (int g = 0; g < step; ++g) part[i][r][g] = hn::MulAdd(x[g][i], y, part[i][r][g]);
        }
      };
      index_t at = 0;
      for (; at + wide * kLanes <= width; at += wide * kLanes) {
        V x[step][wide];
        ATTN_UNROLL for (int g = 0; g < step; ++g) {
          load_vectors<S, wide, (R > 1)>(k[g], at, x[g]);
          bring_near<S, wide * kLanes>(k[g + KeyBlock::ahead], at);
        }
        fetch.template bring<kRate>();
        ATTN_UNROLL for (int i = 0; i < wide; ++i) multiply(x, i, at + i * kLanes);
      }
      for (; at < width; at += kLanes) {
        V x[step][wide];
        ATTN_UNROLL for (int g = 0; g < step; ++g) x[g][0] = S::load_first(k[g], at, width - at);
        fetch.template bring<kRate>();
        multiply(x, 0, at);
      }
    }
    ATTN_UNROLL for (int r = 0; r < R; ++r) {
      ATTN_UNROLL for (int g = 0; g < step; ++g) {
        acc[r * keys + first + g] = wide == 2 ? hn::Add(part[0][r][g], part[wide - 1][r][g]) : part[0][r][g];
      }
    }
  }
  ATTN_UNROLL for (int i = 0; i < sums; i += static_cast<int>(kLanes)) hn::Store(add_lanes(acc + i), d, to + i);
}

}  // namespace attn::kernels::HWY_NAMESPACE::few_rows
HWY_AFTER_NAMESPACE();
#endif
