// Denormals count as zero, on the way in and out, as long as one lives: a multiplication with one takes 250 times as long as
// with another number on the machines at hand.
#pragma once

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace attn::kernels {

class DenormalsAreZero {
 public:
#if defined(__SSE__)
  DenormalsAreZero() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~DenormalsAreZero() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#else
  DenormalsAreZero() {}
#endif
 public:
  DenormalsAreZero(const DenormalsAreZero&) = delete;
  DenormalsAreZero& operator=(const DenormalsAreZero&) = delete;
};

}  // namespace attn::kernels
