#include "attn/record/sink.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace attn {

namespace {

Refusal system_refusal(const std::string& doing, const std::string& path) {
  return refuse(doing + " '" + path + "' failed: " + std::strerror(errno));
}

// Through a temporary file and a rename. Its descriptor, locked before others can find the file.
Result<int> put_in_place(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".tmp" + std::to_string(::getpid());
  const int fd = ::open(temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_APPEND, 0666);
  if (fd < 0) return system_refusal("opening", temporary);
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0 && write_whole(fd, text) && ::fsync(fd) == 0 &&
      ::rename(temporary.c_str(), path.c_str()) == 0)
    return fd;
  const Refusal refusal = system_refusal("writing", path);
  ::close(fd);
  ::unlink(temporary.c_str());
  return refusal;
}

}  // namespace

Result<AppendFile> AppendFile::open(const std::string& path, Mode mode, std::size_t keep_bytes) {
  const auto folder = std::filesystem::path(path).parent_path();
  std::error_code ignored;  // open() says what is wrong
  if (!folder.empty()) std::filesystem::create_directories(folder, ignored);
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0666);
  if (fd < 0) return system_refusal("opening", path);
  AppendFile file(fd, path);
  struct stat held {};
  struct stat named {};
  if (::fstat(fd, &held) != 0 || !S_ISREG(held.st_mode)) return refuse("'" + path + "' is no regular file");
  // Who held it may have put another file in its place since it was opened here.
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0 || ::stat(path.c_str(), &named) != 0 || named.st_ino != held.st_ino)
    return refuse("'" + path + "' is being written by another sweep");
  if (mode == Mode::create && named.st_size > 0)
    return refuse("'" + path + "' exists: --resume goes on with it, --force replaces it");
  if (mode == Mode::replace || mode == Mode::extend) {
    if (Status status = file.cut(mode == Mode::extend ? keep_bytes : 0); !status) return status.refusal();
  }
  return file;
}

Result<std::string> make_new_file(const std::string& stem, const std::string& suffix) {
  std::error_code failed;
  const auto folder = std::filesystem::path(stem).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, failed);
  if (failed) return refuse("making the folder '" + folder.string() + "' failed: " + failed.message());
  for (int i = 1;; ++i) {
    std::string path = stem + (i > 1 ? "-" + std::to_string(i) : "") + suffix;
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) {
      ::close(fd);
      return path;
    }
    if (errno != EEXIST) return system_refusal("making", path);
  }
}

AppendFile::AppendFile(AppendFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}

AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  return *this;
}

AppendFile::~AppendFile() {
  if (fd_ >= 0) ::close(fd_);
}

bool write_whole(int fd, std::string_view text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<std::size_t>(n);
  }
  return true;
}

Status AppendFile::append(const std::string& text) {
  struct stat before {};
  if (::fstat(fd_, &before) != 0) return system_refusal("writing", path_);
  if (!write_whole(fd_, text) || ::fsync(fd_) != 0) {
    const Refusal refusal = system_refusal("writing", path_);
    [[maybe_unused]] const int undone = ::ftruncate(fd_, before.st_size);
    return refusal;
  }
  return {};
}

Status AppendFile::cut(std::size_t keep_bytes) {
  if (::ftruncate(fd_, static_cast<off_t>(keep_bytes)) != 0) return system_refusal("shortening", path_);
  return {};
}

Status AppendFile::rewrite(const std::string& text) {
  std::error_code failed;
  const auto place = std::filesystem::canonical(path_, failed).string();  // a link stays one
  if (failed) return refuse("writing '" + path_ + "' failed: " + failed.message());
  const auto fd = put_in_place(place, text);
  if (!fd) return fd.refusal();
  ::close(std::exchange(fd_, *fd));
  return {};
}

void open_standard_streams() {
  for (int fd = 0; fd >= 0 && fd <= STDERR_FILENO;) {
    fd = ::open("/dev/null", O_RDWR);
    if (fd > STDERR_FILENO) ::close(fd);
  }
}

bool tell(std::FILE* stream, const std::string& text) {
  return std::fwrite(text.data(), 1, text.size(), stream) == text.size() && std::fflush(stream) == 0;
}

void tell_progress(const std::string& line, bool terminal) {
  if (!terminal) {
    tell(stderr, line + "\n");
    return;
  }
  winsize size{};
  const std::size_t width = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  tell(stderr, "\r\033[K" + line.substr(0, width - 1));
}

Result<std::string> read_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe without a writer must not hold us
  if (fd < 0) return system_refusal("opening", path);
  struct stat what {};
  if (::fstat(fd, &what) != 0 || !S_ISREG(what.st_mode)) {
    ::close(fd);
    return refuse("'" + path + "' is no regular file");
  }
  std::string text;
  char chunk[65536];
  ssize_t n = 0;
  while ((n = ::read(fd, chunk, sizeof chunk)) != 0) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    text.append(chunk, static_cast<std::size_t>(n));
  }
  const Refusal refusal = system_refusal("reading", path);
  ::close(fd);
  if (n < 0) return refusal;
  return text;
}

Status write_file(const std::string& path, const std::string& text) {
  const auto fd = put_in_place(path, text);
  if (!fd) return fd.refusal();
  ::close(*fd);
  return {};
}

}  // namespace attn
