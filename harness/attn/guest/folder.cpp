#include "attn/guest/folder.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "attn/variant/remote.hpp"

namespace attn {

namespace {

namespace fs = std::filesystem;

constexpr const char* prefix = "attnbench-guest-";

fs::path parent_folder() {
  if (::access("/dev/shm", W_OK | X_OK) == 0) return "/dev/shm";
  std::error_code none;
  const fs::path folder = fs::temp_directory_path(none);
  return folder.empty() ? "/tmp" : folder;
}

bool linked(int fd) {
  struct stat about {};
  return ::fstat(fd, &about) == 0 && about.st_nlink > 0;
}

}  // namespace

GuestFolder::GuestFolder() {
  // Between its making and its locking a folder looks abandoned to another process: then another one is made.
  for (int attempt = 0; attempt < 100 && fd_ < 0; ++attempt) {
    path_ = (parent_folder() / (std::string(prefix) + "XXXXXX")).string();
    if (::mkdtemp(path_.data()) == nullptr) break;
    fd_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd_ >= 0 && ::flock(fd_, LOCK_EX | LOCK_NB) == 0 && linked(fd_)) return;
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  throw RemoteError(RemoteError::Kind::failed,
                    "no folder for a guest's tensors can be made: '" + path_ + "': " + std::strerror(errno));
}

GuestFolder::~GuestFolder() {
  std::error_code none;
  fs::remove_all(path_, none);
  ::close(fd_);
}

Result<std::string> GuestFolder::read(const std::string& name, std::size_t most_bytes) const {
  if (name.empty() || name.find('/') != std::string::npos || name == "." || name == "..")
    return refuse("'" + name + "' leads outside of its folder; accepted: the plain name of a file there");
  const int fd = ::openat(fd_, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return refuse("'" + name + "' cannot be read from its folder: " + std::strerror(errno));
  struct stat about {};
  std::string bytes, why;
  if (::fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
    why = "is no regular file";
  } else if (static_cast<std::size_t>(about.st_size) > most_bytes) {
    why = "has " + std::to_string(about.st_size) + " bytes, accepted: at most " + std::to_string(most_bytes);
  } else {
    bytes.resize(static_cast<std::size_t>(about.st_size));
    std::size_t done = 0;
    for (ssize_t n; done < bytes.size() && (n = ::read(fd, bytes.data() + done, bytes.size() - done)) > 0;)
      done += static_cast<std::size_t>(n);
    if (done < bytes.size()) why = "ends before its length";
  }
  ::close(fd);
  if (!why.empty()) return refuse("'" + name + "' " + why);
  return bytes;
}

void remove_abandoned_guest_folders() {
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(parent_folder(), none)) {
    if (!entry.path().filename().string().starts_with(prefix)) continue;
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) continue;
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) fs::remove_all(entry.path(), none);
    ::close(fd);
  }
}

}  // namespace attn
