#include "attn/inputs/file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "attn/exec/limits.hpp"

namespace attn {

namespace {

// Where a chain of links ends, whether or not a file is there.
std::string without_links(std::filesystem::path path) {
  std::error_code none;
  for (int links = 0; links < 40 && std::filesystem::is_symlink(path, none); ++links)  // Linux follows as many
    path = path.parent_path() / std::filesystem::read_symlink(path, none);
  return path.string();
}

}  // namespace

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

Status write_whole(const std::string& path, const std::function<void(std::ostream&)>& write) {
  // A device or a pipe is written, not replaced; its link may name no file, as that of /dev/stdout.
  std::error_code none;
  const auto there = std::filesystem::status(path, none).type();
  const bool replaces = there == std::filesystem::file_type::regular || there == std::filesystem::file_type::not_found;
  const std::string target = replaces ? without_links(path) : path;
  const std::string written = replaces ? target + ".part" : target;
  std::ofstream file(written, std::ios::binary);
  write(file);
  file.close();
  if (!file || (replaces && std::rename(written.c_str(), target.c_str()) != 0)) {
    const std::string why = std::strerror(errno);
    if (replaces) std::remove(written.c_str());
    return refuse("cannot write '" + path + "': " + why);
  }
  return {};
}

}  // namespace attn
