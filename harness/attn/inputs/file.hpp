// A file as bytes.
#pragma once

#include <cstddef>
#include <functional>
#include <iosfwd>
#include <span>
#include <string>
#include <utility>

#include "attn/core/result.hpp"

namespace attn {

// Read-only mapping of a regular file: of a large file only what is used gets read. A file that another process cuts
// short meanwhile ends this process with SIGBUS.
class MappedFile {
 public:
  // Refuses what is no readable regular file, and files larger than the memory available now, naming the path.
  static Result<MappedFile> open(const std::string& path);

  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept
      : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(std::string path, const std::byte* data, std::size_t size) : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  const std::byte* data_;
  std::size_t size_;
};

// The file appears whole or not at all; an existing one is replaced, a link to it stays. What is no regular file, such as a device or a pipe,
// is written in place.
Status write_whole(const std::string& path, const std::function<void(std::ostream&)>& write);

}  // namespace attn
