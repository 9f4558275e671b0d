// Keys on their way to the caches; included once per instruction set.
#if defined(ATTN_KERNELS_FETCH_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_FETCH_INL
#undef ATTN_KERNELS_FETCH_INL
#else
#define ATTN_KERNELS_FETCH_INL
#endif
#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>

#include "attn/core/problem.hpp"
#include "attn/kernels/dense/transpose-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE::few_rows {

// Rows on their way into the second cache, a few lines at a time, in the order of addresses: a burst, or rows out of order, costs 10 to
// 30 points of the bandwidth. The first cache has too few lines under way for DRAM (Zen 4, 256 MB, prefetches into it alone: 0.40 of
// the bandwidth at 4 query rows). Each line is asked for twice, first as one of `far` and again as one of `near`: not all come at the
// first time (once: 0.67 at 4 rows and 0.57 at 1, twice: 0.74 and 0.75). Into the first cache they are brought by the kernel.
class Fetch {
 public:
  Fetch(const std::byte* const* near, index_t count, const std::byte* const* far, index_t far_count, index_t row_bytes)
      : row_(near), end_(near + count), far_(far), far_end_(near + std::min(count, far_count)), bytes_(row_bytes) {
    if (count == 0) return;
    lines_ = count * ((row_bytes + 63) / 64);
    // Rows that lie one after another are one long row.
    const auto lie_together = [&](const std::byte* const* rows) { return rows[count - 1] - rows[0] == (count - 1) * row_bytes; };
    together_ = lie_together(near) && (far_count < count || lie_together(far));
    if (together_) {
      end_ = near + 1;
      bytes_ *= count;
      if (far_count < count) far_end_ = near;
    }
    enter_row();
  }

  // All of them in so many steps.
  void spread(index_t steps) { rate_ = (lines_ + steps - 1) / steps; }
  // Lines of a step where that is 1, 2, 4 or 8 and no row ends within one; else 0.
  int rate(int most) const {
    int rate = 1;
    while (rate < rate_) rate *= 2;
    return rate_ > 0 && rate <= most && (together_ || bytes_ % (64 * rate) == 0) ? rate : 0;
  }

  // A step. kRate: `rate`.
  template <int kRate>
  HWY_INLINE void bring() {
    constexpr int together = kRate > 0 ? kRate : 1;
    for (index_t left = kRate > 0 ? kRate : rate_; left > 0; left -= together) {
      if (HWY_UNLIKELY(at_ >= stop_)) {
        if (row_ == end_ || ++row_ == end_) return;
        ++far_;
        enter_row();
      }
      ATTN_UNROLL for (int i = 0; i < together; ++i) {
        __builtin_prefetch(at_ + 64 * i, 0, 2);
        __builtin_prefetch(at_ + to_far_ + 64 * i, 0, 2);
      }
      at_ += 64 * together;
    }
  }

 private:
  HWY_INLINE void enter_row() {
    at_ = *row_;
    stop_ = at_ + bytes_;
    to_far_ = row_ < far_end_ ? *far_ - at_ : 0;
  }

  const std::byte* at_ = nullptr;
  const std::byte* stop_ = nullptr;
  index_t to_far_ = 0;
  const std::byte* const* row_;
  const std::byte* const* end_;
  const std::byte* const* far_;
  const std::byte* const* far_end_;
  index_t bytes_, lines_ = 0, rate_ = 0;
  bool together_ = false;
};

// Elements at .. at + kCount of a row, into the first cache: from the second, and shortly before they are read.
template <class S, index_t kCount>
HWY_INLINE void bring_near(const std::byte* row, index_t at) {
  for (index_t b = 0; b < S::bytes(kCount); b += 64) __builtin_prefetch(row + S::bytes(at) + b, 0, 3);
}

}  // namespace attn::kernels::HWY_NAMESPACE::few_rows
HWY_AFTER_NAMESPACE();
#endif
