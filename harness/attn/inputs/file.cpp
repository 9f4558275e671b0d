#include "attn/inputs/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "attn/exec/limits.hpp"

namespace attn {

Result<MappedFile> MappedFile::open(const std::string& path) {
  const auto refusal = [&path](const std::string& why) { return refuse("'" + path + "': " + why); };
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // O_NONBLOCK: a pipe without writer must not hang
  if (file < 0) return refusal(std::strerror(errno));
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } closer{file};
  struct stat status {};
  if (::fstat(file, &status) != 0) return refusal(std::strerror(errno));
  if (!S_ISREG(status.st_mode)) return refusal("not a regular file");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (const Limits limits = read_limits(); limits.memory_bytes && size > static_cast<std::size_t>(*limits.memory_bytes)) {
    return refusal(std::to_string(size) + " bytes are more than the " + std::to_string(*limits.memory_bytes) +
                   " bytes of memory available, by " + limits.memory_by);
  }
  if (size == 0) return MappedFile(path, nullptr, 0);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
  if (data == MAP_FAILED) return refusal(std::strerror(errno));
  return MappedFile(path, static_cast<const std::byte*>(data), size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace attn
