#include "attn/kernels/dense/gemm.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attn/kernels/dense/gemm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "attn/kernels/dense/gemm-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace attn::kernels::HWY_NAMESPACE {
void Gemm(index_t m, index_t n, index_t k, Left a, Rows b, Into c, const GemmOptions& options) {
  gemm_tiles::run(m, n, k, a, b, c, options);
}
}  // namespace attn::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace attn::kernels {

HWY_EXPORT(Gemm);

void gemm(index_t m, index_t n, index_t k, Left a, Rows b, Into c, const GemmOptions& options) {
  HWY_DYNAMIC_DISPATCH(Gemm)(m, n, k, a, b, c, options);
}

}  // namespace attn::kernels
#endif
