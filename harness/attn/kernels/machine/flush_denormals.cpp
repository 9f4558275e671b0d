#include "attn/kernels/machine/flush_denormals.hpp"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace attn::kernels {

#if defined(__SSE__)
DenormalsAreZero::DenormalsAreZero() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
DenormalsAreZero::~DenormalsAreZero() { _mm_setcsr(saved_); }
#else
DenormalsAreZero::DenormalsAreZero() = default;
DenormalsAreZero::~DenormalsAreZero() = default;
#endif

}  // namespace attn::kernels
