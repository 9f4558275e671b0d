// Several vectors, each to the sum of its lanes; included once per instruction set.
#if defined(ATTN_KERNELS_LANE_SUMS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_LANE_SUMS_INL
#undef ATTN_KERNELS_LANE_SUMS_INL
#else
#define ATTN_KERNELS_LANE_SUMS_INL
#endif
#include "attn/kernels/dense/transpose-inl.hpp"
#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE::few_rows {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET != HWY_SCALAR
// From halves (a0, a1), (b0, b1): a0 + a1, b0 + b1; so below, of smaller pieces of each half.
HWY_INLINE V add_halves(V a, V b) {
  const F d;
  return hn::Add(hn::ConcatUpperLower(d, b, a), hn::ConcatLowerUpper(d, b, a));
}
HWY_INLINE V add_blocks(V a, V b) { return hn::Add(hn::OddEvenBlocks(b, a), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(a, b))); }
HWY_INLINE V add_pairs(V a, V b) {
  const F d;
  const hn::RepartitionToWide<hn::RebindToUnsigned<F>> d64;
  const auto x = hn::BitCast(d64, a), y = hn::BitCast(d64, b);
  return hn::Add(hn::BitCast(d, hn::InterleaveLower(d64, x, y)), hn::BitCast(d, hn::InterleaveUpper(d64, x, y)));
}
HWY_INLINE V add_neighbours(V a, V b) { return hn::Add(hn::OddEven(b, a), hn::Shuffle2301(hn::OddEven(a, b))); }
#endif

// Lane i of the result is the sum of the lanes of a[i]; as many vectors as lanes, which do not stay.
HWY_INLINE V add_lanes(V* a) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (kLanes == 16) {
    ATTN_UNROLL for (int i = 0; i < 8; ++i) a[i] = add_halves(a[i], a[i + 8]);
    ATTN_UNROLL for (int i = 0; i < 4; ++i) a[i] = add_blocks(a[i], a[i + 4]);
  } else if constexpr (kLanes == 8) {
    ATTN_UNROLL for (int i = 0; i < 4; ++i) a[i] = add_halves(a[i], a[i + 4]);
  }
  ATTN_UNROLL for (int i = 0; i < 2; ++i) a[i] = add_pairs(a[i], a[i + 2]);
  return add_neighbours(a[0], a[1]);
#else
  return a[0];
#endif
}

}  // namespace attn::kernels::HWY_NAMESPACE::few_rows
HWY_AFTER_NAMESPACE();
#endif
