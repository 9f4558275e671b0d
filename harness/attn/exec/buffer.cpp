#include "attn/exec/buffer.hpp"

#include <sys/mman.h>

#include <new>

#include "attn/exec/seating.hpp"

namespace attn {

Buffer::Buffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  constexpr std::size_t huge_from_bytes = std::size_t{4} << 20;
  if (bytes >= huge_from_bytes) ::madvise(memory, bytes, MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(memory);
  OnNodes::lay(data_, bytes);
}

Buffer::~Buffer() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

}  // namespace attn
