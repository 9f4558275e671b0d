#include "attn/kernels/linear/taylor.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/linear/taylor.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>

#include "attn/kernels/machine/lanes-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {

void Taylor(index_t m, index_t n, Rows from, Into to) {
  const F d;
  const auto size = static_cast<float>(n);
  const float linear = 1 / std::sqrt(std::sqrt(size)), mixed = 1 / std::sqrt(size), pure = 1 / std::sqrt(2 * size);
  for (index_t i = 0; i < m; ++i) {
    const float* const x = from.data + i * from.stride;
    float* at = to.data + i * to.stride;
    *at++ = 1;
    for (index_t c = 0; c < n; c += kLanes) store_first(hn::Mul(load_first(x + c, n - c), hn::Set(d, linear)), at + c, n - c);
    at += n;
    for (index_t a = 0; a < n; ++a) {
      const V factor = hn::Set(d, x[a] * mixed);
      for (index_t c = a; c < n; c += kLanes) store_first(hn::Mul(load_first(x + c, n - c), factor), at + c - a, n - c);
      at[0] = x[a] * (x[a] * pure);
      at += n - a;
    }
  }
}

}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(Taylor);

void taylor(index_t m, index_t n, Rows from, Into to) { HWY_DYNAMIC_DISPATCH(Taylor)(m, n, from, to); }

}  // namespace attn::kernels
#endif
