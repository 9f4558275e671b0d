#include "attn/report/sink.hpp"

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

}  // namespace

Result<AppendFile> AppendFile::open(const std::string& path, Mode mode, std::size_t keep_bytes) {
  const auto folder = std::filesystem::path(path).parent_path();
  std::error_code ignored;  // open() says what is wrong
  if (!folder.empty()) std::filesystem::create_directories(folder, ignored);
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND | (mode == Mode::create ? O_EXCL : 0), 0666);
  if (fd < 0 && errno == EEXIST) return refuse("'" + path + "' exists: --resume goes on with it, --force replaces it");
  if (fd < 0) return system_refusal("opening", path);
  AppendFile file(fd, path);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) return refuse("'" + path + "' is being written by another sweep");
  if (mode == Mode::replace && ::ftruncate(fd, 0) != 0) return system_refusal("emptying", path);
  if (mode == Mode::extend && ::ftruncate(fd, static_cast<off_t>(keep_bytes)) != 0) return system_refusal("repairing", path);
  return file;
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
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return system_refusal("opening", path);
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
  const std::string temporary = path + ".tmp" + std::to_string(::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return system_refusal("opening", temporary);
  const bool written = write_whole(fd, text) && ::fsync(fd) == 0;
  const Refusal refusal = system_refusal("writing", path);
  ::close(fd);
  if (!written || ::rename(temporary.c_str(), path.c_str()) != 0) {
    ::unlink(temporary.c_str());
    return refusal;
  }
  return {};
}

}  // namespace attn
