// A file of given bytes, for parsers that open one.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <span>
#include <string>

#include "attn/core/assert.hpp"

// Its path; what it held before is gone.
inline std::string scratch_file(std::span<const std::byte> bytes) {
  static const int fd = ::memfd_create("fuzz", MFD_CLOEXEC);
  ATTN_ASSERT(fd >= 0 && ::ftruncate(fd, 0) == 0);
  ATTN_ASSERT(::pwrite(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  return "/proc/self/fd/" + std::to_string(fd);
}
