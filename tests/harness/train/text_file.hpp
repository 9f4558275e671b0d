// Files of a test's own, gone when it ends.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace attn::test {

class TextFile {
 public:
  TextFile(const std::string& name, const std::string& bytes)
      : path_((std::filesystem::temp_directory_path() / ("attn-" + std::to_string(::getpid()) + "-" + name)).string()) {
    std::ofstream(path_, std::ios::binary) << bytes;
  }
  ~TextFile() { std::filesystem::remove(path_); }
  TextFile(const TextFile&) = delete;
  TextFile& operator=(const TextFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A compiled catalogue of messages and translations, in either byte order.
inline std::string catalogue(const std::vector<std::pair<std::string, std::string>>& entries, bool big_endian = false) {
  std::string head, texts;
  const auto number = [&](std::string& to, std::size_t value) {
    for (int i = 0; i < 4; ++i) to += static_cast<char>(value >> 8 * (big_endian ? 3 - i : i) & 0xff);
  };
  const std::size_t tables = 28, count = entries.size(), begin = tables + 16 * count;
  for (const std::size_t value :
       {std::size_t{0x950412de}, std::size_t{0}, count, tables, tables + 8 * count, std::size_t{0}, std::size_t{0}})
    number(head, value);
  const auto table = [&](auto side) {
    for (const auto& entry : entries) {
      number(head, side(entry).size());
      number(head, begin + texts.size());
      texts += side(entry) + '\0';
    }
  };
  table([](const auto& entry) { return entry.first; });
  table([](const auto& entry) { return entry.second; });
  return head + texts;
}

inline std::string header(const std::string& charset) {
  return "Language: fr\nContent-Type: text/plain; charset=" + charset + "\n";
}

}  // namespace attn::test
