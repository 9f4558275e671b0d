// Stored numbers as vectors of floats, which rounds nothing: the same bits on every instruction set. Included once for each.
#if defined(ATTN_KERNELS_STORAGE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_STORAGE_INL
#undef ATTN_KERNELS_STORAGE_INL
#else
#define ATTN_KERNELS_STORAGE_INL
#endif
#include <hwy/highway.h>
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "attn/core/dtype.hpp"
#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE::stored {
namespace hn = hwy::HWY_NAMESPACE;

// Another number type is another of these. `at`, in elements, is a multiple of the lanes; elements from `count` on are zero, and not
// read.
struct F32 {
  static constexpr index_t bytes(index_t count) { return 4 * count; }
  static HWY_INLINE const float* row(const std::byte* row) { return reinterpret_cast<const float*>(row); }
  static HWY_INLINE V load(const std::byte* bytes, index_t at) { return hn::LoadU(F(), row(bytes) + at); }
  static HWY_INLINE V load_first(const std::byte* bytes, index_t at, index_t count) {
    return HWY_NAMESPACE::load_first(row(bytes) + at, count);
  }
};

// The first `count` elements of 2 bytes, then zeros, for S::load.
template <class S>
HWY_INLINE V load_first_halves(const std::byte* row, index_t at, index_t count) {
  if (count >= kLanes) return S::load(row, at);
  HWY_ALIGN std::byte copy[2 * kLanes] = {};
  std::memcpy(copy, row + 2 * at, static_cast<std::size_t>(2 * count));
  return S::load(copy, 0);
}

struct Bf16 {
  static constexpr index_t bytes(index_t count) { return 2 * count; }
  static HWY_INLINE V load(const std::byte* row, index_t at) {
    const hn::RebindToUnsigned<F> wide;
    const hn::Rebind<std::uint16_t, F> narrow;
    const auto* from = reinterpret_cast<const std::uint16_t*>(row) + at;
    return hn::BitCast(F(), hn::ShiftLeft<16>(hn::PromoteTo(wide, hn::LoadU(narrow, from))));
  }
  static HWY_INLINE V load_first(const std::byte* row, index_t at, index_t count) {
    return load_first_halves<Bf16>(row, at, count);
  }
};

struct F16 {
  static constexpr index_t bytes(index_t count) { return 2 * count; }
  static HWY_INLINE V load(const std::byte* row, index_t at) {
    const std::byte* const from = row + 2 * at;
#if HWY_TARGET == HWY_AVX3
    return V{_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
#elif HWY_TARGET == HWY_AVX2
    return V{_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))};
#elif HWY_TARGET == HWY_SCALAR  // Highway's knows neither infinity nor NaN
    f16 one;
    std::memcpy(&one, from, sizeof one);
    return V(to_float(one));
#else
    return hn::PromoteTo(F(), hn::LoadU(hn::Rebind<hwy::float16_t, F>(), reinterpret_cast<const hwy::float16_t*>(from)));
#endif
  }
  static HWY_INLINE V load_first(const std::byte* row, index_t at, index_t count) { return load_first_halves<F16>(row, at, count); }
};

struct Q8 {
  static constexpr index_t bytes(index_t count) { return (count + q8::count - 1) / q8::count * static_cast<index_t>(sizeof(q8)); }
  static HWY_INLINE V load(const std::byte* row, index_t at) {
    const std::byte* const block = block_of(row, at);
    return times_scale(hn::LoadU(hn::Rebind<std::int8_t, F>(), values_of(block, at)), scale_of(block));
  }
  // kCount vectors that lie in one block: its scale is widened once.
  template <int kCount>
  static HWY_INLINE void load_some(const std::byte* row, index_t at, V* to) {
    static_assert(kCount * kLanes <= q8::count);
    const std::byte* const block = block_of(row, at);
    const std::int8_t* const values = values_of(block, at);
    const V scale = scale_of(block);
    for (int i = 0; i < kCount; ++i) to[i] = times_scale(hn::LoadU(hn::Rebind<std::int8_t, F>(), values + i * kLanes), scale);
  }
  static HWY_INLINE V load_first(const std::byte* row, index_t at, index_t count) {
    if (count >= kLanes) return load(row, at);
    const std::byte* const block = block_of(row, at);
    HWY_ALIGN std::int8_t copy[kLanes] = {};
    std::memcpy(copy, values_of(block, at), static_cast<std::size_t>(count));
    return times_scale(hn::Load(hn::Rebind<std::int8_t, F>(), copy), scale_of(block));
  }

 private:
  static HWY_INLINE const std::byte* block_of(const std::byte* row, index_t at) {
    return row + at / q8::count * static_cast<index_t>(sizeof(q8));
  }
  static HWY_INLINE const std::int8_t* values_of(const std::byte* block, index_t at) {
    static_assert(q8::count % kLanes == 0);
    return reinterpret_cast<const std::int8_t*>(block + offsetof(q8, values)) + at % q8::count;
  }
  // 8 bits times 11: exact.
  static HWY_INLINE V times_scale(hn::Vec<hn::Rebind<std::int8_t, F>> values, V scale) {
    const hn::RebindToSigned<F> whole;
    return hn::Mul(hn::ConvertTo(F(), hn::PromoteTo(whole, values)), scale);
  }
  static HWY_INLINE V scale_of(const std::byte* block) {
    f16 scale;
    std::memcpy(&scale, block, sizeof scale);
#if HWY_TARGET == HWY_AVX3
    return V{_mm512_cvtph_ps(_mm256_set1_epi16(static_cast<short>(scale.bits)))};
#elif HWY_TARGET == HWY_AVX2
    return V{_mm256_cvtph_ps(_mm_set1_epi16(static_cast<short>(scale.bits)))};
#else
    return hn::Set(F(), to_float(scale));
#endif
  }
};

}  // namespace attn::kernels::HWY_NAMESPACE::stored
HWY_AFTER_NAMESPACE();
#endif
