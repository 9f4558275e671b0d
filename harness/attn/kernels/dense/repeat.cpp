#include "attn/kernels/dense/repeat.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/dense/repeat.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cstdint>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

void RepeatRow(index_t m, index_t n, const float* row, Into to, bool past_caches) {
  const F d;
  const bool whole_vectors = (n | to.stride) % kLanes == 0 && reinterpret_cast<std::uintptr_t>(to.data) % sizeof(V) == 0;
  if (past_caches && whole_vectors) {
    for (index_t i = 0; i < m; ++i) {
      for (index_t j = 0; j < n; j += kLanes) hn::Stream(hn::LoadU(d, row + j), d, to.data + i * to.stride + j);
    }
    hwy::FlushStream();
    return;
  }
  for (index_t i = 0; i < m; ++i) {
    for (index_t j = 0; j < n; j += kLanes) store_first(load_first(row + j, n - j), to.data + i * to.stride + j, n - j);
  }
}

void MixRow(index_t n, float keep, float factor, const float* row, float* to) {
  const F d;
  const V kept = hn::Set(d, keep), by = hn::Set(d, factor);
  for (index_t j = 0; j < n; j += kLanes)
    store_first(hn::MulAdd(kept, load_first(to + j, n - j), hn::Mul(by, load_first(row + j, n - j))), to + j, n - j);
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(RepeatRow);
HWY_EXPORT(MixRow);

void repeat_row(index_t m, index_t n, const float* row, Into to, bool past_caches) {
  HWY_DYNAMIC_DISPATCH(RepeatRow)(m, n, row, to, past_caches);
}
void mix_row(index_t n, float keep, float factor, const float* row, float* to) {
  HWY_DYNAMIC_DISPATCH(MixRow)(n, keep, factor, row, to);
}

}  // namespace attn::kernels
#endif
