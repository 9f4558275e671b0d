// Denormals count as zero, on the way in and out, as long as one lives: a multiplication with one takes 250 times as long as
// with another number where microcode does it. Of the calling thread.
#pragma once

namespace attn::kernels {

class DenormalsAreZero {
 public:
  DenormalsAreZero();
  ~DenormalsAreZero();
  DenormalsAreZero(const DenormalsAreZero&) = delete;
  DenormalsAreZero& operator=(const DenormalsAreZero&) = delete;

 private:
  [[maybe_unused]] unsigned saved_ = 0;
};

}  // namespace attn::kernels
