// How the rows of a cache are stored; included once per instruction set.
#if defined(ATTN_KERNELS_STORAGE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef ATTN_KERNELS_STORAGE_INL
#undef ATTN_KERNELS_STORAGE_INL
#else
#define ATTN_KERNELS_STORAGE_INL
#endif
#include <hwy/highway.h>

#include <cstddef>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE::few_rows {
namespace hn = hwy::HWY_NAMESPACE;

// Another number type is another of these.
struct F32 {
  static constexpr index_t element_bytes = 4;
  static HWY_INLINE const float* row(const std::byte* bytes) { return reinterpret_cast<const float*>(bytes); }
  static HWY_INLINE V load(const std::byte* bytes, index_t at) { return hn::LoadU(F(), row(bytes) + at); }
  static HWY_INLINE V load_first(const std::byte* bytes, index_t at, index_t count) {
    return HWY_NAMESPACE::load_first(row(bytes) + at, count);
  }
};

}  // namespace attn::kernels::HWY_NAMESPACE::few_rows
HWY_AFTER_NAMESPACE();
#endif
