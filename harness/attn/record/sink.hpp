// Files that lose nothing: each record is appended with one write and forced to disk before the next cell starts.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "attn/core/result.hpp"

namespace attn {

class AppendFile {
 public:
  enum class Mode {
    create,   // refuses a file that holds something
    replace,  // empties it
    extend,   // keeps the first `keep_bytes`, goes on behind them
    hold,     // leaves it as it is
  };
  // Refuses what cannot be opened, what is no regular file and what another process holds.
  static Result<AppendFile> open(const std::string& path, Mode mode, std::size_t keep_bytes = 0);

  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;
  ~AppendFile();

  // All of it or, with the file as it was, a refusal.
  Status append(const std::string& text);
  // Keeps the first `keep_bytes`.
  Status cut(std::size_t keep_bytes);
  // As write_file. The file stays held.
  Status rewrite(const std::string& text);
  const std::string& path() const { return path_; }

 private:
  AppendFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_ = -1;
  std::string path_;
};

// Makes an empty file that was not there, and the folders above it: stem + suffix, or stem-2 + suffix and so on where others are. Its name.
Result<std::string> make_new_file(const std::string& stem, const std::string& suffix);

// All of the text, in as many writes as it takes; false when nobody takes it.
bool write_whole(int fd, std::string_view text);

// Descriptors 0, 1 and 2 exist from here on, closed ones as /dev/null: a file opened as 2 would receive messages too.
void open_standard_streams();

// Text for whoever reads stdout or stderr, at once. False when nobody can; unlike fmt::print it throws nothing.
bool tell(std::FILE* stream, const std::string& text);

// A line of progress on stderr: on a terminal it rewrites itself and is cut to the width, elsewhere it is one of many.
void tell_progress(const std::string& line, bool terminal);

// Whole regular file, or why not: a device or a pipe may have no end.
Result<std::string> read_file(const std::string& path);

// Through a temporary file and a rename: readers see the old text or the new one.
Status write_file(const std::string& path, const std::string& text);

}  // namespace attn
